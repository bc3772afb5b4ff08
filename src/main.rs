//! The program.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(3).unwrap_or_default();
    let file = std::path::PathBuf::from(file);
    let loaded = tidegate::config::read(&file)?;
    let _app = tidegate::app::App::start(loaded, Some(file), None)?;
    loop {
        std::thread::park();
    }
}

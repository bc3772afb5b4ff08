//! The files `jwks/HASH.json` in the folder `state`: what the URLs of issuers' keys gave last, for a start while a URL cannot be
//! reached. Blocks.
//!
//! HASH is the SHA-256 of the URL. The content is what the URL gave, also a set without keys, so that a restart undoes no
//! revocation; the time of the last change of the file is when the URL last gave it. There is one file for each URL of the
//! configuration, of at most 1 MiB.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use super::whole_file::replace;
use crate::{
    config::{Config, jwks::MOST_JWKS_BYTES},
    registry::KeyDocument,
    store::Hash,
};

/// Its folder in the folder `state`.
const FOLDER: &str = "jwks";

/// Mode of the files.
const MODE: u32 = 0o600;

/// Reads what the URLs of `config` gave to earlier processes from the folder `state`. A file that cannot be read is logged.
pub fn read_kept_keys(state: &Path, config: &Config) -> Vec<(String, KeyDocument)> {
    let urls = config.jwt.values().filter(|jwt| jwt.is_fetched()).map(|jwt| &jwt.jwks);
    let mut documents = Vec::new();
    for url in urls {
        let path = path(state, url);
        match read(&path) {
            Ok(document) => documents.push((url.clone(), document)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "kept keys of an issuer cannot be read; they are fetched");
            }
        }
    }
    documents
}

/// Makes the files in the folder `state` those of `documents`, by URL, and removes others. The folder must exist.
pub(super) fn keep(state: &Path, documents: &[(String, KeyDocument)]) -> io::Result<()> {
    let folder = state.join(FOLDER);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut kept = Ok(());
    for (url, document) in documents {
        let path = path(state, url);
        let written = write(&path, document).inspect_err(|_| {
            // Else the next process would take keys for good that may be revoked.
            let is_old = fs::read(&path).is_ok_and(|old| old != document.text.as_bytes());
            if is_old {
                let _ = fs::remove_file(&path);
            }
        });
        kept = kept.and(written);
    }
    let swept = remove_others(&folder, documents);
    // A power failure must not bring earlier files back.
    kept.and(swept).and(File::open(&folder)?.sync_all())
}

fn path(state: &Path, url: &str) -> PathBuf {
    state.join(FOLDER).join(name(url))
}

fn name(url: &str) -> String {
    format!("{}.json", Hash::of(url.as_bytes()))
}

fn read(path: &Path) -> io::Result<KeyDocument> {
    // What is no plain file may never end.
    let data = fs::symlink_metadata(path)?;
    if !data.is_file() || data.len() > MOST_JWKS_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is not a file of keys"));
    }
    let (text, now) = (fs::read_to_string(path)?, Instant::now());
    // A time to come is that of a clock that was wrong.
    let age = SystemTime::now().duration_since(data.modified()?).unwrap_or_default();
    let came = now.checked_sub(age).unwrap_or(now);
    Ok(KeyDocument { text: text.into(), came, is_confirmed: false })
}

fn write(path: &Path, document: &KeyDocument) -> io::Result<()> {
    if fs::read(path).ok().as_deref() != Some(document.text.as_bytes()) {
        replace(path, document.text.as_bytes(), MODE)?;
    }
    let now = SystemTime::now();
    let came = now.checked_sub(document.came.elapsed()).unwrap_or(now);
    File::options().write(true).open(path)?.set_modified(came)
}

/// Removes the files of URLs that are in no document; files with other names stay.
fn remove_others(folder: &Path, documents: &[(String, KeyDocument)]) -> io::Result<()> {
    let used: Vec<String> = documents.iter().map(|(url, _)| name(url)).collect();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let hash = name.split_once('.').filter(|(_, end)| ["json", "json.part"].contains(end));
        if hash.is_some_and(|(hash, _)| hash.parse::<Hash>().is_ok()) && !used.contains(&name) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;

    const URLS: [&str; 2] = ["https://a.example/jwks", "https://b.example/jwks"];

    fn document(text: &str) -> KeyDocument {
        let came = Instant::now().checked_sub(Duration::from_secs(90)).expect("it ran so long");
        KeyDocument { text: text.into(), came, is_confirmed: true }
    }

    fn config() -> Config {
        let issuer = |name: &str, url: &str| {
            format!("{name}: {{ jwks: '{url}', algorithms: [ ES256 ], issuer: a }}")
        };
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\njwt: {{ {}, {} }}\nroutes: [ {{ service: a }} ]\n\
             services: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n",
            issuer("a", URLS[0]),
            issuer("b", URLS[1]),
        );
        crate::config::parse(&text).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn kept(state: &Path) -> Vec<(String, String)> {
        let all = read_kept_keys(state, &config()).into_iter();
        let mut all: Vec<_> = all.map(|(url, found)| (url, found.text.to_string())).collect();
        all.sort();
        all
    }

    #[test]
    fn what_urls_gave_is_read_again_and_files_of_others_are_removed() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(kept(state.path()), []);
        let [a, b] = URLS.map(|url| (url.to_owned(), document("{\"keys\":[]}")));
        keep(state.path(), &[a, b.clone()]).expect("written");
        let text = "{\"keys\":[]}".to_owned();
        assert_eq!(kept(state.path()), URLS.map(|url| (url.to_owned(), text.clone())));
        let (_, found) = &read_kept_keys(state.path(), &config())[0];
        let age = found.came.elapsed();
        assert!((Duration::from_secs(89)..Duration::from_secs(120)).contains(&age), "{age:?}");
        assert!(!found.is_confirmed);
        let folder = state.path().join(FOLDER);
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path(state.path(), URLS[0]))), (0o700, 0o600));
        let note = folder.join("note.json");
        fs::write(&note, "an operator's").expect("a file");
        fs::write(folder.join(name("c") + ".part"), "half").expect("a file");
        keep(state.path(), &[b]).expect("written");
        assert_eq!(kept(state.path()), [(URLS[1].to_owned(), text)]);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2);
        assert!(note.exists());
    }

    /// Regression: keys that the issuer had revoked must not be in a file if the new set cannot be written.
    #[test]
    fn what_cannot_be_written_leaves_no_earlier_keys() {
        let state = tempfile::tempdir().expect("a folder");
        let of = |text: &str| [(URLS[0].to_owned(), document(text))];
        keep(state.path(), &of("{\"keys\":[{}]}")).expect("written");
        let path = path(state.path(), URLS[0]);
        // The place of the part is taken.
        let part = path.with_file_name(name(URLS[0]) + ".part");
        fs::create_dir(&part).expect("a folder");
        assert!(keep(state.path(), &of("{\"keys\":[]}")).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_file_of_keys_is_left_out() {
        let state = tempfile::tempdir().expect("a folder");
        let path = path(state.path(), URLS[0]);
        fs::create_dir_all(&path).expect("a folder");
        assert_eq!(kept(state.path()), []);
        fs::remove_dir(&path).expect("removed");
        fs::write(&path, vec![b' '; MOST_JWKS_BYTES as usize + 1]).expect("a file");
        assert_eq!(kept(state.path()), []);
    }
}

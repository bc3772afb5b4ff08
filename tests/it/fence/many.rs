//! Many fenced cutovers under load. `TIDEGATE_FENCES` sets how many there are.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::{cutover::runs, support::SetOnDrop};

/// Clients that write, each one write after the other.
const WRITERS: usize = 6;

/// Of so many cutovers, one misses its deadline.
const ONE_IS_LATE: u64 = 20;

#[test]
fn no_two_versions_work_on_writes_and_no_client_is_overtaken() {
    let fences = runs("TIDEGATE_FENCES", 40);
    let stage = Stage::with("deadline: 1s", Duration::from_millis(20), |builder| builder);
    let (ended, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let slowest_read = AtomicU64::new(0);
    let (mut longest, mut late, mut held) = (Vec::new(), 0, 0);
    let began = Instant::now();
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        for n in 0..WRITERS {
            let (stage, ended) = (&stage, &ended);
            scope.spawn(move || {
                let mut client = stage.proxy().connect();
                for write in 0_u64.. {
                    if ended.load(SeqCst) {
                        return;
                    }
                    let target = format!("/{n}/{write}");
                    let answer = client.post(&target, b"x").send();
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
        // Another one writes over streams of HTTP/2.
        scope.spawn(|| {
            let streams = Http2::connect(stage.proxy().address);
            for write in 0_u64.. {
                if ended.load(SeqCst) {
                    return;
                }
                let status = streams.run(async {
                    let target = format!("/{WRITERS}/{write}");
                    let (answer, mut body) = streams.open(request("POST", &target)).await;
                    body.send_data("x".into(), true).expect("open");
                    answer.await.expect("an answer").status()
                });
                assert_eq!(status, 200);
            }
        });
        scope.spawn(|| {
            let mut client = stage.proxy().connect();
            while !ended.load(SeqCst) {
                let asked = Instant::now();
                assert_eq!(client.get("/").send().status, 200);
                slowest_read.fetch_max(asked.elapsed().as_micros() as u64, SeqCst);
                reads.fetch_add(1, SeqCst);
            }
        });
        for number in 1..=fences {
            let to = if stage.share_of_v2() > 0.5 { "v1" } else { "v2" };
            let is_late = number.is_multiple_of(ONE_IS_LATE);
            let stuck = is_late.then(|| stage.stick());
            let answer = match number.is_multiple_of(3) && !is_late && number > 3 {
                true => stage.post("rollback", &json!({})),
                false => stage.cut_over(to),
            };
            if let Some(mut stuck) = stuck {
                assert_eq!(answer.status, 504, "{}", answer.text());
                stage.unstick();
                assert_eq!(stuck.answer().status, 200);
                late += 1;
                continue;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            let told = answer.json();
            longest.push(told["longest_hold_ms"].as_f64().expect("a number"));
            held += told["writes_held"].as_u64().expect("a number");
        }
    });
    let writes = stage.writes();
    let mut of_clients: Vec<(&str, u64, Instant)> = writes
        .iter()
        .filter_map(|write| {
            let (client, number) = write.target.strip_prefix('/')?.split_once('/')?;
            Some((client, number.parse().ok()?, write.began))
        })
        .collect();
    of_clients.sort_by_key(|(client, _, began)| (*client, *began));
    for pair in of_clients.windows(2) {
        let [(one, first, _), (other, second, _)] = pair else { continue };
        assert!(one != other || first + 1 == *second, "client {one}: {second} after {first}");
    }
    longest.sort_by(f64::total_cmp);
    let p99 = longest[longest.len() * 99 / 100];
    let reads = reads.load(SeqCst);
    eprintln!(
        "{fences} fenced cutovers in {:.1?}, {late} of them undone at the deadline: {} writes, {held} held; longest \
         hold of a cutover: p50 {:.1} ms, p99 {p99:.1} ms, most {:.1} ms; {reads} reads, the slowest {:.1} ms",
        began.elapsed(),
        writes.len(),
        longest[longest.len() / 2],
        longest[longest.len() - 1],
        slowest_read.load(SeqCst) as f64 / 1e3,
    );
    assert!(held > fences, "writes were held");
    assert_apart(writes);
}

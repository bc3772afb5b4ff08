//! Keys from a URL outlive reloads, takeovers and restarts, while the URL cannot be reached.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::process::free_address;

/// An issuer's keys at a URL that can be made to fail.
struct Url {
    origin: Origin,
    works: Arc<AtomicBool>,
}

impl Url {
    fn of(issuer: &Issuer) -> Self {
        let works = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&works);
        Self { origin: issuer.serve_if(move || flag.load(SeqCst)), works }
    }

    fn fail(&self) {
        self.works.store(false, SeqCst);
    }
}

fn with_state(builder: Builder, folder: &Path) -> Builder {
    builder.top(&format!("state: '{}'", folder.join("state").display()))
}

fn kept(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("state/jwks")).into_iter().flatten();
    files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text")).collect()
}

/// Regression: a restart while the issuer could not be reached refused all its players with 503.
#[test]
fn a_restart_while_the_url_fails_has_the_last_good_keys() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let (keys, folder) = (Url::of(&issuer), tempfile::tempdir().expect("a folder"));
    let builder = with_state(asking(&origin, &url(&keys.origin), ""), folder.path());
    let proxy = builder.start();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    eventually("they are kept", || kept(folder.path()) == [issuer.jwks()]);
    proxy.shutdown();
    keys.fail();
    let proxy = builder.start();
    let failed = "tidegate_jwks_fetches_total{jwt=\"players\",result=\"error\"}";
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    eventually("they are fetched at once", || metric(&proxy, failed) > 0.0);
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    proxy.shutdown();
    let other = asking(&origin, &format!("{}/other", url(&keys.origin)), "");
    let _proxy = with_state(other, folder.path()).start();
    eventually("the file of a URL that is not used is removed", || kept(folder.path()).is_empty());
}

/// Regression: keys that were all revoked must not be good again because the process was started again.
#[test]
fn a_restart_while_the_url_fails_undoes_no_revocation() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let (keys, answer) = key_server(issuer.jwks());
    let folder = tempfile::tempdir().expect("a folder");
    let builder = with_state(asking(&origin, &url(&keys), "refresh: 10s"), folder.path());
    let proxy = builder.start();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    *answer.lock().expect("no panic") = (200, "{\"keys\":[]}".to_owned());
    eventually("they are revoked", || kept(folder.path()) == ["{\"keys\":[]}"]);
    proxy.shutdown();
    *answer.lock().expect("no panic") = (500, String::new());
    let proxy = builder.start();
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token), (401, "token".to_owned()));
}

/// Regression: a reload that renamed an issuer, or changed its algorithms, forgot its keys.
#[test]
fn a_reload_keeps_the_keys_of_a_url_whatever_else_changes() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = Url::of(&issuer);
    let builder = asking(&origin, &url(&keys.origin), "");
    let proxy = builder.start_with_file();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    keys.fail();
    let renamed = builder.text().replace("players", "gamblers");
    let (applied, _) = proxy.reloads();
    proxy.write(&renamed);
    eventually("it is taken over", || proxy.reloads().0 > applied);
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    proxy.write(&renamed.replace("[ ES256 ]", "[ RS256, ES256 ]"));
    eventually("it is taken over", || proxy.reloads().0 > applied + 1);
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200);
    proxy.write(&renamed.replace("[ ES256 ]", "[ RS256 ]"));
    eventually("it is taken over", || proxy.reloads().0 > applied + 2);
    assert_ne!(ask(&mut proxy.connect(), "/bets/1", &token).0, 200, "another algorithm");
}

/// Regression: a process that took over while the issuer could not be reached refused all its players with 503.
#[test]
fn a_takeover_while_the_url_fails_hands_the_keys_over() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let (keys, admin) = (Url::of(&issuer), free_address());
    let process = Proxy::builder()
        .version("v1", &origin)
        .top(&format!("admin: {{ address: \"{admin}\" }}"))
        .top(&format!("jwt: {{ players: {{ jwks: '{}', {TERMS} }} }}", url(&keys.origin)))
        .route("auth: { jwt: players }")
        .spawn();
    let token = issuer.bearer("ada");
    eventually("the keys are here", || ask(&mut process.connect(), "/bets/1", &token).0 == 200);
    let status = || {
        let mut client = std::panic::catch_unwind(|| Client::connect(admin)).ok()?;
        let answer = client.get("/v1/status").host("localhost").try_send().ok()?;
        (answer.status == 200).then(|| answer.json())
    };
    let pid = || status().and_then(|status| status["pid"].as_i64());
    let before = pid().expect("it serves");
    keys.fail();
    let old = Pid::from_raw(i32::try_from(before).expect("a pid")).expect("a pid");
    kill_process(old, Signal::USR2).expect("it runs");
    eventually("another process serves", || pid().is_some_and(|pid| pid != before));
    assert_eq!(ask(&mut process.connect(), "/bets/1", &token).0, 200, "{}", process.log());
    let issuer = status().expect("it serves")["issuers"][0].clone();
    assert_eq!((&issuer["name"], &issuer["keys"]), (&json!("players"), &json!(1)), "{issuer}");
}

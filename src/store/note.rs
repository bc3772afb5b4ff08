//! Checkpoints: the head of a journal, signed, to be kept where the journal is not.
//!
//! The form is the [signed note] of the C2SP, with the lines of its [tlog-checkpoint]: origin, size, hash in
//! base64, and then `time` and an RFC 3339 time as a line of ours; an empty line; and a signature by Ed25519.
//! Other than there, the hash is the one of the last line in a chain and not the root of a Merkle tree.
//!
//! ```text
//! tidegate/edge-1/6b1f0c…
//! 1207
//! 2jmj7l5rSw0yVb/vlWAYkK/YBwk9Y8h1vM0VtQ1bS1U=
//! time 2026-01-31T12:00:00.000Z
//!
//! — tidegate/edge-1/6b1f0c… Az3grlgtzPIC…
//! ```
//!
//! Keys are the texts of Go's `note` package, so other programs verify a checkpoint, too.
//!
//! [signed note]: https://c2sp.org/signed-note
//! [tlog-checkpoint]: https://c2sp.org/tlog-checkpoint

use std::{fmt, str::FromStr, time::SystemTime};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{chain::Head, entry::written, hash::Hash};

/// Longest note that is read, in bytes.
const MAX_NOTE_BYTES: usize = 64 * 1024;

/// Ed25519, as keys in text say so.
const ALGORITHM: u8 = 1;

/// The start of a private key in text.
const PRIVATE: &str = "PRIVATE+KEY+";

/// The head of a journal at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The journal: `tidegate/`, the node and the random bits in the first entry.
    pub origin: String,
    /// Its last entry.
    pub head: Head,
    /// When the checkpoint was made, to the millisecond.
    pub at: SystemTime,
}

/// Why a text is no checkpoint that this key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text does not have the form of a checkpoint.
    #[error("the checkpoint is malformed: {0}")]
    Malformed(&'static str),
    /// The key did not sign it.
    #[error("the checkpoint has no signature by this key")]
    OtherKey,
    /// It, or the signature, was changed.
    #[error("the signature of the checkpoint is wrong: it was changed, or signed by somebody else")]
    BadSignature,
    /// The text does not have the form of a key.
    #[error("the key is malformed")]
    MalformedKey,
    /// The key was made for another journal.
    #[error("the key was made for another journal")]
    KeyOfOther,
}

/// A key that verifies checkpoints. As text: `NAME+ID+BASE64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    /// Its name: the journal for which it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256 over name, line break, algorithm and key.
    fn id(&self) -> [u8; 4] {
        let hashed = [self.name.as_bytes(), b"\n", &[ALGORITHM], &self.key].concat();
        let [a, b, c, d, ..] = *Hash::of(&hashed).as_bytes();
        [a, b, c, d]
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ALGORITHM][..], &self.key].concat());
        write!(f, "{}+{:08x}+{key}", self.name, u32::from_be_bytes(self.id()))
    }
}

impl FromStr for PublicKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, key) = read_key(text.trim()).ok_or(NoteError::MalformedKey)?;
        let public = Self { name, key };
        // The text has the id of the key, too, so a mistyped key is found here.
        if public.to_string() == text.trim() { Ok(public) } else { Err(NoteError::MalformedKey) }
    }
}

/// A key that signs checkpoints.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    public: PublicKey,
}

impl SigningKey {
    /// The key called `name` that is made of these 32 random bytes.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::MalformedKey);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        let pair = pair.map_err(|_| NoteError::MalformedKey)?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| NoteError::MalformedKey)?;
        Ok(Self { pair, seed, public: PublicKey { name: name.to_owned(), key } })
    }

    /// The key that verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as text, to be kept secret: `PRIVATE+KEY+NAME+ID+BASE64`.
    pub fn secret_text(&self) -> String {
        let key = STANDARD.encode([&[ALGORITHM][..], &self.seed].concat());
        let id = u32::from_be_bytes(self.public.id());
        format!("{PRIVATE}{}+{id:08x}+{key}", self.public.name)
    }

    /// Reads the text of [`SigningKey::secret_text`].
    pub fn from_secret_text(text: &str) -> Result<Self, NoteError> {
        let rest = text.trim().strip_prefix(PRIVATE).ok_or(NoteError::MalformedKey)?;
        let (name, seed) = read_key(rest).ok_or(NoteError::MalformedKey)?;
        let key = Self::from_seed(&name, seed)?;
        if key.secret_text() == text.trim() { Ok(key) } else { Err(NoteError::MalformedKey) }
    }

    /// `checkpoint` as a signed note.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let body = checkpoint.to_string();
        let signature = self.pair.sign(body.as_bytes());
        let signature = STANDARD.encode([&self.public.id()[..], signature.as_ref()].concat());
        format!("{body}\n\u{2014} {} {signature}\n", self.public.name)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl fmt::Display for Checkpoint {
    /// The signed part of a note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, head, at } = self;
        let hash = STANDARD.encode(head.hash.as_bytes());
        writeln!(f, "{origin}\n{}\n{hash}\ntime {}", head.seq, written(*at))
    }
}

impl Checkpoint {
    /// Reads a note, whoever signed it.
    pub fn read(note: &str) -> Result<Self, NoteError> {
        let (body, _) = split(note)?;
        let mut lines = body.lines();
        let mut line = |what| lines.next().ok_or(NoteError::Malformed(what));
        let origin = line("it names no journal")?.to_owned();
        if !is_name(&origin) {
            return Err(NoteError::Malformed("it names no journal"));
        }
        let no_size = NoteError::Malformed("its second line is no number of entries");
        let size = line("it has no number of entries")?;
        let seq: u64 = size.parse().map_err(|_| no_size)?;
        if seq.to_string() != size {
            return Err(no_size);
        }
        let no_hash = NoteError::Malformed("its third line is no hash");
        let hash = STANDARD.decode(line("it has no hash")?).map_err(|_| no_hash)?;
        let hash = Hash::from_bytes(&hash).ok_or(no_hash)?;
        let no_time = NoteError::Malformed("it has no time");
        let time = lines.find_map(|line| line.strip_prefix("time ")).ok_or(no_time)?;
        let at = humantime::parse_rfc3339(time).map_err(|_| no_time)?;
        Ok(Self { origin, head: Head { seq, hash }, at })
    }

    /// Reads a note that `key` has signed. Signatures by others are ignored.
    pub fn verify(note: &str, key: &PublicKey) -> Result<Self, NoteError> {
        let (body, signatures) = split(note)?;
        let id = key.id();
        let mut found = Err(NoteError::OtherKey);
        for line in signatures.lines() {
            let line = line.strip_prefix("\u{2014} ");
            let malformed = NoteError::Malformed("a line of a signature");
            let (name, text) = line.and_then(|line| line.split_once(' ')).ok_or(malformed)?;
            let bytes = STANDARD.decode(text).map_err(|_| malformed)?;
            let Some((of, signature)) = bytes.split_first_chunk::<4>() else {
                return Err(malformed);
            };
            if name == key.name && *of == id {
                let known = UnparsedPublicKey::new(&ED25519, key.key);
                let verified = known.verify(body.as_bytes(), signature);
                verified.map_err(|_| NoteError::BadSignature)?;
                found = Ok(());
            }
        }
        found?;
        Self::read(note)
    }
}

/// The signed part of a note, its last line break included, and the lines of signatures.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::Malformed("it is too long"));
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no empty line"))?;
    if !note.ends_with('\n') || note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Malformed("it is no text of lines"));
    }
    Ok((&note[..=at], &note[at + 2..]))
}

/// Name and 32 bytes of `NAME+ID+BASE64`, whatever the id.
fn read_key(text: &str) -> Option<(String, [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, _id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = STANDARD.decode(key).ok()?;
    let (algorithm, key) = bytes.split_first()?;
    let is_known = *algorithm == ALGORITHM && is_name(name);
    is_known.then_some((name.to_owned(), key.try_into().ok()?))
}

/// Whether a key may be called so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "tidegate/edge-1/00ff".to_owned(),
            head: Head { seq: 1207, hash: Hash::of(b"line") },
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("tidegate/edge-1/00ff", [seed; 32]).unwrap()
    }

    #[test]
    fn a_signed_checkpoint_is_read_again() {
        let note = key(1).sign(&checkpoint());
        assert_eq!(Checkpoint::verify(&note, key(1).public()), Ok(checkpoint()));
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(lines[..2], ["tidegate/edge-1/00ff", "1207"]);
        assert_eq!(lines[3..5], ["time 2023-11-14T22:13:20.123Z", ""]);
        assert!(lines[5].starts_with("— tidegate/edge-1/00ff "));
        assert_eq!(Checkpoint::verify(&note, key(2).public()), Err(NoteError::OtherKey));
    }

    #[test]
    fn keys_are_the_same_as_text() {
        let key = key(7);
        let again = SigningKey::from_secret_text(&key.secret_text()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public().clone()));
        let other = key.public().to_string().replace("edge-1", "edge-2");
        assert_eq!(other.parse::<PublicKey>(), Err(NoteError::MalformedKey));
        assert!(!format!("{key:?}").contains(&key.secret_text()[12..]));
    }

    /// The key and note in the documentation of Go's package `golang.org/x/mod/sumdb/note`.
    #[test]
    fn keys_of_the_package_that_defined_them_are_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.name(), "PeterNeumann");
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        // Its signature is right; it is no checkpoint.
        let read = Checkpoint::verify(note, &key);
        assert!(matches!(read, Err(NoteError::Malformed(_))), "{read:?}");
        let changed = note.replace("problem,", "problem.");
        assert_eq!(Checkpoint::verify(&changed, &key), Err(NoteError::BadSignature));
    }

    #[test]
    fn no_changed_byte_of_a_note_goes_unnoticed() {
        let note = key(1).sign(&checkpoint());
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                let read = Checkpoint::verify(&changed, key(1).public());
                assert!(read.is_err(), "byte {at}, bit {bit}: {changed}");
            }
        }
    }
}

//! The split: which version a player gets, by weighted rendezvous hashing.
//!
//! For each version of weight `w > 0`: `h = XXH3-64(salt ‖ 0x1F ‖ version name ‖ 0x1F ‖ key)`, `u =
//! (⌊h / 2^12⌋ + ½) / 2^52`, which lies in (0, 1) and is exact in a double; the version with the
//! smallest `-ln(u) / w` wins, the first by name order of the file on a tie. `-ln(u) / w` is an
//! exponential variable of rate `w`, so each version is the minimum with probability `w / Σw`, and
//! changing one weight changes only that version's own score: players move to it or from it, never
//! between others (Efraimidis and Spirakis 2006; Thaler and Ravishankar 1998 for the unweighted
//! form).
//!
//! Rejected: a hash modulo a table of slots. It is faster for many versions, but a change of one
//! weight moves players between the others, and shares are rounded to slots.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::config::units::Weight;

/// Separates the parts of the hashed text; cannot occur in names, and keys are last.
const SEPARATOR: u8 = 0x1F;

/// Exceeds the rounding errors of a score, so that the bound never contradicts the score.
const ROUNDING: f64 = 1.0 + 1e-9;

/// Longest text hashed in a copy of [`Arm::start`]: sufficient for nearly all.
const SHORT_BYTES: usize = 64;

/// Longest text hashed from the stack; longer keys are streamed.
const INLINE_BYTES: usize = 256;

/// The weights of a service's versions, ready to assign players.
#[derive(Debug, Clone, Default)]
pub struct Split {
    arms: Box<[Arm]>,
    /// The arm whose hash determines a player's bucket.
    bucket_arm: usize,
}

/// A version with weight.
#[derive(Debug, Clone)]
struct Arm {
    version: u16,
    weight: f64,
    /// `salt ‖ 0x1F ‖ version name ‖ 0x1F`.
    prefix: Box<[u8]>,
    /// The beginning of the prefix, followed by zeros, so that a copy needs no clearing.
    start: [u8; SHORT_BYTES],
}

impl Split {
    /// A split over `versions`, each a name and its weight; [`Split::assign`] returns the index of
    /// a version.
    pub fn new<'a>(salt: &str, versions: impl IntoIterator<Item = (&'a str, Weight)>) -> Self {
        let versions: Vec<_> = versions.into_iter().zip(0u16..).collect();
        let largest = versions.iter().map(|((_, weight), _)| weight.value()).fold(0.0, f64::max);
        // Only proportions count. Below this a quotient would be infinite, and so the same for all versions.
        let scale = if largest < 1e-200 { 1e200 } else { 1.0 };
        let arms = versions
            .into_iter()
            .filter(|((_, weight), _)| weight.value() > 0.0)
            .map(|((name, weight), version)| {
                let mut prefix = Vec::with_capacity(salt.len() + name.len() + 2);
                prefix.extend_from_slice(salt.as_bytes());
                prefix.push(SEPARATOR);
                prefix.extend_from_slice(name.as_bytes());
                prefix.push(SEPARATOR);
                let mut start = [0; SHORT_BYTES];
                let fits = prefix.len().min(SHORT_BYTES);
                start[..fits].copy_from_slice(&prefix[..fits]);
                Arm { version, weight: weight.value() * scale, prefix: prefix.into(), start }
            })
            .collect();
        Self { arms, bucket_arm: 0 }
    }

    /// Makes the hash of `version`, if that has weight, determine the buckets of players, so that
    /// they do not depend on the weights of other versions.
    pub fn bucket_by(self, version: u16) -> Self {
        let bucket_arm = self.arms.iter().position(|arm| arm.version == version);
        Self { bucket_arm: bucket_arm.unwrap_or(0), ..self }
    }

    /// The version of the player with `key`; `None` if no version has weight.
    pub fn assign(&self, key: &[u8]) -> Option<u16> {
        self.assign_with_bucket(key).map(|(version, _)| version)
    }

    /// Likewise, with the bucket by which the comparison identifies the player: the lowest bits of
    /// the hash of the version set by [`Split::bucket_by`]. They contribute less than 2^-48 to the
    /// fraction, so the bucket is independent of the version that a player gets.
    pub fn assign_with_bucket(&self, key: &[u8]) -> Option<(u16, u16)> {
        match &*self.arms {
            [] => None,
            [only] => Some((only.version, only.hash_apart(key) as u16)),
            arms => {
                let (mut best, mut bucket) = ((f64::INFINITY, arms[0].version), 0_u16);
                for (number, arm) in arms.iter().enumerate() {
                    let hash = arm.hash(key);
                    if number == self.bucket_arm {
                        bucket = hash as u16;
                    }
                    let unit = unit(hash);
                    // Since -ln(u) >= 1 - u, most lighter versions have lost before the logarithm.
                    if 1.0 - unit > best.0 * arm.weight * ROUNDING {
                        continue;
                    }
                    let score = -unit.ln() / arm.weight;
                    if score < best.0 {
                        best = (score, arm.version);
                    }
                }
                Some((best.1, bucket))
            }
        }
    }

    /// Whether the key matters: more than one version has weight.
    pub fn needs_key(&self) -> bool {
        self.arms.len() > 1
    }
}

impl Arm {
    /// Not inlined, unlike in the loop over all arms.
    #[inline(never)]
    fn hash_apart(&self, key: &[u8]) -> u64 {
        self.hash(key)
    }

    #[inline(always)]
    fn hash(&self, key: &[u8]) -> u64 {
        let total = self.prefix.len() + key.len();
        if total <= SHORT_BYTES {
            let mut text = self.start;
            text[self.prefix.len()..total].copy_from_slice(key);
            xxh3_64(&text[..total])
        } else if total <= INLINE_BYTES {
            let mut text = [0u8; INLINE_BYTES];
            text[..self.prefix.len()].copy_from_slice(&self.prefix);
            text[self.prefix.len()..total].copy_from_slice(key);
            xxh3_64(&text[..total])
        } else {
            let mut state = Xxh3::new();
            state.update(&self.prefix);
            state.update(key);
            state.digest()
        }
    }
}

/// A hash as a number in (0, 1).
fn unit(hash: u64) -> f64 {
    const STEPS: f64 = (1u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn split(salt: &str, weights: &[(&'static str, f64)]) -> Split {
        Split::new(salt, weights.iter().map(|(n, w)| (*n, Weight::new(*w).expect("a weight"))))
    }

    /// Computed by `tests/reference/cohorts.py`, which shares no code with this file.
    const REFERENCE: &str = include_str!("../../tests/reference/cohorts.json");

    #[test]
    fn agrees_with_the_independent_reference() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(REFERENCE).expect("JSON");
        assert!(cases.len() >= 500, "the reference holds {} cases", cases.len());
        for case in cases {
            let versions = case["versions"].as_array().expect("versions");
            let split = Split::new(
                case["salt"].as_str().expect("salt"),
                versions.iter().map(|v| {
                    let weight = Weight::new(v[1].as_f64().expect("weight")).expect("in range");
                    (v[0].as_str().expect("name"), weight)
                }),
            );
            let got = split.assign(case["key"].as_str().expect("key").as_bytes());
            let name = got.map(|v| versions[usize::from(v)][0].clone());
            assert_eq!(name.as_ref(), Some(&case["assigned"]), "{case}");
        }
    }

    #[test]
    fn shares_follow_weights_over_a_million_keys() {
        let weights = [("v1", 60.0), ("v2", 25.0), ("v3", 12.5), ("v4", 2.5)];
        let split = split("release-42", &weights);
        let mut counts = [0u64; 4];
        for player in 0..1_000_000u32 {
            let key = format!("player-{player}");
            counts[usize::from(split.assign(key.as_bytes()).expect("a version"))] += 1;
        }
        let chi2: f64 = weights
            .iter()
            .zip(counts)
            .map(|((_, w), n)| {
                let expected = w / 100.0 * 1e6;
                (n as f64 - expected).powi(2) / expected
            })
            .sum();
        // The 99.9 % point of chi-squared with three degrees of freedom.
        assert!(chi2 < 16.27, "chi-squared {chi2}, counts {counts:?}");
    }

    #[test]
    fn players_of_an_emptied_version_spread_by_weight() {
        let before = split("s", &[("a", 50.0), ("b", 30.0), ("c", 20.0)]);
        let after = split("s", &[("a", 0.0), ("b", 30.0), ("c", 20.0)]);
        let mut moved = HashMap::new();
        for player in 0..200_000u32 {
            let key = player.to_le_bytes();
            let (old, new) = (before.assign(&key), after.assign(&key));
            if old == Some(0) {
                *moved.entry(new).or_insert(0u32) += 1;
            } else {
                assert_eq!(old, new, "a player of another version moved");
            }
        }
        let total: u32 = moved.values().sum();
        let share = f64::from(moved[&Some(1)]) / f64::from(total);
        // Five standard deviations of a binomial share.
        let slack = 5.0 * (0.6 * 0.4 / f64::from(total)).sqrt();
        assert!((share - 0.6).abs() < slack, "b took {share} of the emptied version's players");
    }

    #[test]
    fn buckets_of_players_are_many_and_say_nothing_of_the_version() {
        let alone = split("release-42", &[("v1", 100.0), ("v2", 0.0)]).bucket_by(0);
        let after = split("release-42", &[("v0", 3.0), ("v1", 5.0), ("v2", 1.0)]).bucket_by(1);
        let split = split("release-42", &[("v1", 75.0), ("v2", 25.0)]).bucket_by(0);
        let (mut buckets, mut by_half) = (std::collections::HashSet::new(), [[0_u32; 2]; 2]);
        for player in 0..40_000 {
            let key = format!("player-{player}");
            let (version, bucket) = split.assign_with_bucket(key.as_bytes()).expect("a version");
            assert_eq!(split.assign(key.as_bytes()), Some(version));
            for other in [&alone, &after] {
                assert_eq!(
                    other.assign_with_bucket(key.as_bytes()).map(|(_, bucket)| bucket),
                    Some(bucket)
                );
            }
            buckets.insert(bucket);
            by_half[usize::from(bucket & 1)][usize::from(version)] += 1;
        }
        // 65,536 (1 - exp(-40,000 / 65,536)) = 29,940 are expected.
        assert!((29_600..30_300).contains(&buckets.len()), "{}", buckets.len());
        for [v1, v2] in by_half {
            let share = f64::from(v2) / f64::from(v1 + v2);
            assert!((0.24..0.26).contains(&share), "{by_half:?}");
        }
    }

    #[test]
    fn one_version_of_weight_skips_the_hash() {
        let split = split("", &[("a", 0.0), ("b", 0.001)]);
        assert!(!split.needs_key());
        assert_eq!(split.assign(b"anyone"), Some(1));
        assert_eq!(Split::default().assign(b"anyone"), None);
    }

    /// Regression: with weights of 1e-320 all players got the first version, and the shares said half and half.
    #[test]
    fn weights_of_any_scale_split_by_their_proportions() {
        for scale in [f64::MIN_POSITIVE * 1e-14, 1e-310, 1e-300, 1e-200, 1e-9, 1.0, 1e11] {
            let split = split("salt", &[("a", 3.0 * scale), ("b", scale)]);
            let assigned = |n: u32| split.assign(n.to_string().as_bytes());
            let of_a = (0..10_000u32).filter(|n| assigned(*n) == Some(0)).count();
            assert!((7300..7700).contains(&of_a), "{scale}: {of_a}");
        }
    }

    #[test]
    fn a_fraction_never_reaches_its_bounds() {
        for hash in [0, 1, u64::MAX, u64::MAX - 1, 1 << 63] {
            let u = unit(hash);
            assert!(u > 0.0 && u < 1.0 && u.ln().is_finite(), "{hash} gave {u}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            key in ".{0,300}", weights in prop::collection::vec(0.001f64..1000.0, 2..6),
        ) {
            const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
            let named: Vec<(&str, f64)> = NAMES.into_iter().zip(weights).collect();
            let score = |(name, weight): &(&str, f64)| {
                let text = format!("salt\u{1F}{name}\u{1F}{key}");
                -unit(xxh3_64(text.as_bytes())).ln() / weight
            };
            let best = (0..named.len()).min_by(|a, b| score(&named[*a]).total_cmp(&score(&named[*b])));
            prop_assert_eq!(split("salt", &named).assign(key.as_bytes()).map(usize::from), best);
        }

        #[test]
        fn growing_one_weight_moves_players_only_to_that_version(
            key in ".{0,400}", salt in "[a-z]{0,8}", weights in prop::collection::vec(0.0f64..100.0, 2..6),
            grown in 0usize..6, by in 0.001f64..1000.0,
        ) {
            const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
            let grown = grown % weights.len();
            let make = |w: &[f64]| {
                Split::new(&salt, w.iter().zip(NAMES).map(|(w, n)| (n, Weight::new(*w).expect("weight"))))
            };
            let mut larger = weights.clone();
            larger[grown] += by;
            let (old, new) = (make(&weights).assign(key.as_bytes()), make(&larger).assign(key.as_bytes()));
            prop_assert!(old == new || new == Some(grown as u16), "moved from {old:?} to {new:?}");
            // Every restart agrees: nothing but the arguments decides.
            prop_assert_eq!(new, make(&larger).assign(key.as_bytes()));
        }

        #[test]
        fn scale_of_weights_does_not_matter(key in "[a-z0-9]{1,40}", a in 1u32..1000, b in 1u32..1000) {
            let (a, b) = (f64::from(a), f64::from(b));
            let one = split("s", &[("a", a), ("b", b)]).assign(key.as_bytes());
            // Powers of two scale a double without rounding.
            let two = split("s", &[("a", a * 1024.0), ("b", b * 1024.0)]).assign(key.as_bytes());
            prop_assert_eq!(one, two);
        }
    }
}

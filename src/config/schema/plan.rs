//! Plans of rollouts: steps, and the gates between them.

use std::{fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
};

use crate::config::units::{self, Share};

/// Most steps of a plan.
pub const MAX_STEPS: usize = 50;

/// Most gates of a step.
pub const MAX_GATES: usize = 20;

/// Longest time of a call to a webhook of a gate.
pub const MAX_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(300);

/// A step of a plan: a share of players for the new version, and what must be so before the next
/// step. The same type reads the steps of a plan in a file and those in a request to the admin API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of players that the new version gets; larger than in the step before. `100%` in the
    /// last step, and only there.
    pub weight: Share,
    /// Least time of the step. Default: none.
    #[serde(rename = "for", default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub least: Option<Duration>,
    /// Most time of the step in which not all gates pass: after it `evidence` without a verdict
    /// passes, another guardrail fails, and another signal holds the rollout. At least `for`.
    /// Default: no limit.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub within: Option<Duration>,
    /// Gates, at most 20, all of which must pass. Default: none.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub gates: Vec<Gate>,
    /// How long the new version is judged with all players, before the rollout is done; only in the
    /// last step, in the place of `for` and `within`. Default: not at all.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub bake: Option<Duration>,
    /// Least requests of the new version in the step. Default: none.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub requests: Option<u64>,
}

/// A gate: a condition of growth. Written as `evidence`, or as
/// `{ evidence: { kind: signal } }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The question.
    pub question: GateQuestion,
    /// What a gate that fails does.
    pub kind: GateKind,
}

/// The condition of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateQuestion {
    /// Whether the version is healthy by the comparison with the baseline.
    Evidence,
    /// Whether the version is within the absolute limits of the service.
    Slo,
    /// Whether its business amounts agree with the baseline's.
    Amounts,
    /// Whether a person approves.
    Approval,
    /// Whether the smoke check of this name succeeds.
    Smoke(String),
    /// Whether another program agrees.
    Webhook(GateWebhook),
}

/// What a gate that fails does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// The rollout goes back to the split before it.
    Guardrail,
    /// The rollout holds, and goes on when the gate passes.
    Signal,
}

/// A program that is asked by HTTP: a POST with the payload of Flagger's webhooks. The statuses 200
/// to 202 pass; another one fails, with the body as message; without a response it is undecided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateWebhook {
    /// What it is called in the status, in reasons and in the journal. Default: the host of the URL.
    pub name: Option<String>,
    /// The URL, such as `http://gate:8080/check`. Its path and query may contain a secret.
    pub url: String,
    /// Longest time of a call, at most 5 minutes. Default `10s`.
    pub timeout: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

impl GateQuestion {
    /// Gates that need no settings.
    const PLAIN: [&str; 4] = ["evidence", "slo", "amounts", "approval"];

    /// All gates as they are written at the shortest.
    const WRITTEN: [&str; 6] =
        ["evidence", "slo", "amounts", "approval", "{ smoke: NAME }", "{ webhook: { url: … } }"];

    /// The word by which a file, the API and the journal call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Slo => "slo",
            Self::Amounts => "amounts",
            Self::Approval => "approval",
            Self::Smoke(_) => "smoke",
            Self::Webhook(_) => "webhook",
        }
    }

    /// The kind where none is written: measurements of the version are guardrails; replies of people and
    /// of other programs are signals, since their silence or fault is no fault of the version.
    fn default_kind(&self) -> GateKind {
        match self {
            Self::Evidence | Self::Slo | Self::Amounts | Self::Smoke(_) => GateKind::Guardrail,
            Self::Approval | Self::Webhook(_) => GateKind::Signal,
        }
    }
}

impl From<GateQuestion> for Gate {
    fn from(question: GateQuestion) -> Self {
        let kind = question.default_kind();
        Self { question, kind }
    }
}

impl fmt::Display for GateQuestion {
    /// Without the URL of a webhook, whose path may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smoke(name) => write!(f, "smoke {name}"),
            Self::Webhook(GateWebhook { name: Some(name), .. }) => write!(f, "webhook {name}"),
            Self::Webhook(hook) => {
                let url: Option<http::Uri> = hook.url.parse().ok();
                let host = url.and_then(|url| url.host().map(str::to_owned));
                write!(f, "webhook {}", host.unwrap_or_default())
            }
            other => f.write_str(other.label()),
        }
    }
}

/// A gate as a map with one field.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Gate_settings")]
struct Written {
    /// Whether the version is healthy by the comparison with the baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Plain>,
    /// Whether the version is within the limits that `slo` of the service sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    slo: Option<Plain>,
    /// Whether its business amounts agree with the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    amounts: Option<Plain>,
    /// Whether a person approves.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<Plain>,
    /// Whether a smoke check succeeds: its name, or its name and a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    smoke: Option<Smoke>,
    /// Whether another program agrees.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<Webhook>,
}

/// Settings of a gate that has none of its own.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Gate_plain")]
struct Plain {
    /// What it does when it fails. Default `guardrail`; of an approval `signal`.
    kind: Option<GateKind>,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Gate_smoke")]
enum Smoke {
    Name(String),
    Settings(SmokeSettings),
}

/// A smoke check and its kind.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Gate_smoke_settings")]
struct SmokeSettings {
    /// The smoke check.
    name: String,
    /// What it does when it fails. Default `guardrail`.
    #[serde(default)]
    kind: Option<GateKind>,
}

/// A program to ask, and its kind.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Gate_webhook")]
struct Webhook {
    /// What it is called in the status, in reasons and in the journal: letters, digits and `_.-`. Default: the host
    /// of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The URL, such as `http://gate:8080/check`.
    #[schemars(regex(pattern = "^https?://[!-~]+$"))]
    url: String,
    /// What it does when it fails. Default `signal`.
    #[serde(default)]
    kind: Option<GateKind>,
    /// Longest time of a call, at most 5 minutes. Default `10s`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    timeout: Duration,
}

impl<'de> Deserialize<'de> for Smoke {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Smoke;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a smoke check")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Smoke, E> {
                Ok(Smoke::Name(name.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Smoke, A::Error> {
                let settings = SmokeSettings::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Smoke::Settings(settings))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Written {
    /// The gate; `None` unless there is exactly one.
    fn gate(self) -> Option<Gate> {
        let plain = |question: GateQuestion| move |plain: Plain| (question, plain.kind);
        let all = [
            self.evidence.map(plain(GateQuestion::Evidence)),
            self.slo.map(plain(GateQuestion::Slo)),
            self.amounts.map(plain(GateQuestion::Amounts)),
            self.approval.map(plain(GateQuestion::Approval)),
            self.smoke.map(|smoke| match smoke {
                Smoke::Name(name) => (GateQuestion::Smoke(name), None),
                Smoke::Settings(SmokeSettings { name, kind }) => (GateQuestion::Smoke(name), kind),
            }),
            self.webhook.map(|Webhook { name, url, kind, timeout }| {
                (GateQuestion::Webhook(GateWebhook { name, url, timeout }), kind)
            }),
        ];
        let mut all = all.into_iter().flatten();
        let (Some((question, kind)), None) = (all.next(), all.next()) else { return None };
        let kind = kind.unwrap_or(question.default_kind());
        Some(Gate { question, kind })
    }
}

impl From<&Gate> for Written {
    fn from(gate: &Gate) -> Self {
        let (kind, mut written) = (Some(gate.kind), Self::default());
        match &gate.question {
            GateQuestion::Evidence => written.evidence = Some(Plain { kind }),
            GateQuestion::Slo => written.slo = Some(Plain { kind }),
            GateQuestion::Amounts => written.amounts = Some(Plain { kind }),
            GateQuestion::Approval => written.approval = Some(Plain { kind }),
            GateQuestion::Smoke(name) => {
                written.smoke = Some(Smoke::Settings(SmokeSettings { name: name.clone(), kind }));
            }
            GateQuestion::Webhook(GateWebhook { name, url, timeout }) => {
                let (name, url, timeout) = (name.clone(), url.clone(), *timeout);
                written.webhook = Some(Webhook { name, url, kind, timeout });
            }
        }
        written
    }
}

impl<'de> Deserialize<'de> for Gate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Gate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a gate, such as evidence, { smoke: NAME } or { webhook: { url: … } }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Gate, E> {
                Ok(Gate::from(match text {
                    "evidence" => GateQuestion::Evidence,
                    "slo" => GateQuestion::Slo,
                    "amounts" => GateQuestion::Amounts,
                    "approval" => GateQuestion::Approval,
                    "smoke" => {
                        let message = "the smoke check is missing; write { smoke: NAME }";
                        return Err(E::custom(message));
                    }
                    "webhook" => {
                        let message = "the URL is missing; write { webhook: { url: … } }";
                        return Err(E::custom(message));
                    }
                    other => return Err(E::unknown_variant(other, &GateQuestion::WRITTEN)),
                }))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Gate, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                written.gate().ok_or_else(|| {
                    de::Error::custom(
                        "a gate is one question; write a list of gates, such as [ evidence, { smoke: NAME } ]",
                    )
                })
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Serialize for Gate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Written::from(self).serialize(s)
    }
}

impl JsonSchema for Gate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Gate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A gate: evidence, { slo: { kind: signal } }, { smoke: NAME }.",
            "anyOf": [
                { "type": "string", "enum": GateQuestion::PLAIN },
                generator.subschema_for::<Written>()
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_a_word_or_a_map_with_a_kind() {
        let read = |text: &str| serde_json::from_str::<Gate>(text).expect(text);
        assert_eq!(read("\"evidence\""), GateQuestion::Evidence.into());
        assert_eq!(read("\"slo\"").kind, GateKind::Guardrail);
        assert_eq!(read("\"approval\"").kind, GateKind::Signal);
        assert_eq!(read("{\"evidence\": {\"kind\": \"signal\"}}").kind, GateKind::Signal);
        assert_eq!(read("{\"approval\": {\"kind\": \"guardrail\"}}").kind, GateKind::Guardrail);
        let smoke = Gate::from(GateQuestion::Smoke("money-path".to_owned()));
        assert_eq!(read("{\"smoke\": \"money-path\"}"), smoke);
        let signal = read("{\"smoke\": {\"name\": \"money-path\", \"kind\": \"signal\"}}");
        assert_eq!(signal, Gate { kind: GateKind::Signal, ..smoke });
        let hook = read("{\"webhook\": {\"url\": \"http://u@gate/secret\"}}");
        let GateQuestion::Webhook(GateWebhook { timeout, .. }) = &hook.question else {
            panic!("a webhook")
        };
        assert_eq!((*timeout, hook.kind), (Duration::from_secs(10), GateKind::Signal));
        assert_eq!(hook.question.to_string(), "webhook gate");
        for gate in [hook, signal, GateQuestion::Amounts.into()] {
            let text = serde_json::to_string(&gate).expect("JSON");
            assert_eq!(read(&text), gate, "{text}");
        }
        for bad in ["\"evidense\"", "{}", "1", "{\"slo\": {}, \"evidence\": {}}", "\"webhook\""] {
            assert!(serde_json::from_str::<Gate>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_are_written_alike_in_a_file_and_in_a_request() {
        let text = r#"{"weight": "5%", "for": "10m", "within": "1h", "requests": 100,
            "gates": ["evidence", {"webhook": {"url": "http://gate/", "kind": "guardrail", "timeout": "2s"}}]}"#;
        let step: Step = serde_json::from_str(text).expect("a step");
        assert_eq!(step.weight, Share(0.05));
        assert_eq!(step.least, Some(Duration::from_secs(600)));
        assert_eq!(step.gates[1].kind, GateKind::Guardrail);
        let again = serde_json::to_string(&step).expect("JSON");
        assert_eq!(serde_json::from_str::<Step>(&again).expect("the same"), step);
    }
}

//! Jobs: the id in a receipt, how a job stands, and which jobs there are. Pure; `mod` asks, this judges.
//!
//! COMPLETED means finished, not worked: Esri's own example of a completed job carries `"operationResponse":{"status":"error"}`.

use serde_json::Value;

use super::envelope::{is_said, messages};
use crate::model::JobId;
use crate::ports::JobState;

/// How deep a result is searched for a failure. JSON nested deeper than 128 is not read at all; what is nested deeper than this has
/// texts of JSON in texts of JSON, and is taken for a failure, since nobody looked to its end.
const DEPTH_MAX: usize = 256;

/// The job a good answer to a push names. The documents' field is `cloudCredentialRotationJobId`, not the `jobid` of other operations.
pub fn id_of(value: &Value) -> Option<JobId> {
    ["cloudCredentialRotationJobId", "jobid", "jobId"]
        .iter()
        .find_map(|key| value.get(*key)?.as_str())
        .filter(|id| is_job_id(id))
        .map(JobId::new)
}

/// The same from the reply as three of Esri's documents print it: the id without its opening quote, and therefore no JSON.
/// Not from a page: its links may lead to any job.
pub fn id_of_malformed(body: &[u8]) -> Option<JobId> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if !text.starts_with('{') {
        return None;
    }
    let (_, rest) = text.split_once("cloudCredentialRotationJobId")?;
    let rest = rest.trim_start_matches(['"', '\'', ':', ' ', '\t', '\r', '\n']);
    let id = rest.get(..JOB_ID_LENGTH)?;
    let ends = !rest[JOB_ID_LENGTH..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    (ends && is_canonical(id)).then(|| JobId::new(id))
}

const JOB_ID_LENGTH: usize = 37;

/// `j` and a UUID in lower case.
fn is_canonical(id: &str) -> bool {
    id.len() == JOB_ID_LENGTH
        && id.bytes().enumerate().all(|(at, byte)| match at {
            0 => byte == b'j',
            9 | 14 | 19 | 24 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

/// What may stand in a URL's path as a job. Wider than what the documents show, and still no way out of the path.
pub fn is_job_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Every job of a list. Server prints ids; what Kubernetes prints is not documented, so ids and objects are both taken, and what is
/// neither is left out.
pub fn ids_of_list(value: &Value) -> Option<Vec<JobId>> {
    let list = value.get("jobs").unwrap_or(value).as_array()?;
    let id = |entry: &Value| {
        let id = ["jobid", "jobId", "jobID", "id"].iter().find_map(|key| entry.get(*key)).unwrap_or(entry);
        id.as_str().filter(|id| is_job_id(id)).map(JobId::new)
    };
    Some(list.iter().filter_map(id).collect())
}

/// How the job stands that an answer describes; `None` where it describes none.
pub fn state_of(job: &Value, clean: impl Fn(&str) -> String) -> Option<JobState> {
    let said = job.get("status")?.as_str()?.trim();
    let status = said.to_ascii_uppercase();
    Some(match status.as_str() {
        "COMPLETED" => match failure_in(job) {
            Some(what) => JobState::Failed(format!("completed with an error inside: {}", clean(&what))),
            None => JobState::Succeeded,
        },
        "FAILED" | "CANCELLED" | "TIMED OUT" | "TIMED_OUT" => {
            let what = failure_in(job).or_else(|| Some(all_messages(job)).filter(|said| !said.is_empty()));
            let what = what.map_or_else(|| "it gives no reason".to_owned(), |what| clean(&what));
            JobState::Failed(format!("{}: {what}", status.to_ascii_lowercase()))
        }
        // SUBMITTED, EXECUTING, CANCELLING (rolling back), UNAVAILABLE ("at this time"), and whatever a later version invents.
        // Cleaned as it was said: in another case a secret in it would not be known.
        _ => JobState::Running(clean(said).to_ascii_lowercase()),
    })
}

/// Where an operation puts its outcome: `result` on Kubernetes, `operationResponse` on Server. Their shape is documented for neither.
const OUTCOMES: [&str; 3] = ["operationResponse", "result", "error"];

fn failure_in(job: &Value) -> Option<String> {
    if let Some(error) = job.get("error").filter(|error| is_said(error)) {
        return Some(said(error));
    }
    if job.get("success") == Some(&Value::Bool(false)) {
        return Some(said(job));
    }
    OUTCOMES.iter().filter_map(|key| job.get(*key)).find_map(|outcome| failure(outcome, DEPTH_MAX))
}

/// What speaks of failure in an outcome: `status` or `state` of a failed thing, an `error`, `success: false`, at any level.
fn failure(value: &Value, depth: usize) -> Option<String> {
    let Some(depth) = depth.checked_sub(1) else { return Some("it is nested too deep".to_owned()) };
    match value {
        Value::Array(list) => list.iter().find_map(|entry| failure(entry, depth)),
        // Some operations put their answer as a text into another.
        Value::String(text) if text.trim_start().starts_with('{') => failure(&serde_json::from_str(text).ok()?, depth),
        Value::Object(map) => {
            let is_failed = |key: &str| {
                let word = map.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_ascii_lowercase();
                ["error", "failed", "failure", "cancelled", "timed out"].contains(&word.as_str())
            };
            if is_failed("status") || is_failed("state") || map.get("success") == Some(&Value::Bool(false)) {
                return Some(said(value));
            }
            if let Some(error) = map.get("error").filter(|error| is_said(error)) {
                return Some(said(error));
            }
            map.values().find_map(|inner| failure(inner, depth))
        }
        _ => None,
    }
}

fn said(value: &Value) -> String {
    let name = value.get("name").and_then(Value::as_str).map(|name| format!("stage {name}"));
    let words = [name, Some(messages(value)).filter(|words| !words.is_empty())];
    let words = words.into_iter().flatten().collect::<Vec<_>>();
    if words.is_empty() { "it gives no reason".to_owned() } else { words.join(": ") }
}

fn all_messages(job: &Value) -> String {
    let places = [Some(job), job.get("operationResponse"), job.get("result")];
    let words = places.into_iter().flatten().map(messages).filter(|words| !words.is_empty());
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "j876ae6e7-27d9-4b2d-b8ab-d07e2433e2c1";

    fn state(job: Value) -> JobState {
        state_of(&job, str::to_owned).expect("it describes a job")
    }

    fn failed(job: Value) -> String {
        match state(job) {
            JobState::Failed(what) => what,
            other => panic!("{other:?} is not a failure"),
        }
    }

    #[test]
    fn the_job_of_a_receipt() {
        let message = "A cloud credentials rotation job is in-progress";
        assert_eq!(id_of(&json!({"cloudCredentialRotationJobId": ID, "message": message})), Some(JobId::new(ID)));
        assert_eq!(id_of(&json!({"jobid": ID})), Some(JobId::new(ID)));
        assert_eq!(id_of(&json!({"cloudCredentialRotationJobId": "../services/x"})), None);
        assert_eq!(id_of(&json!({"message": message})), None);
    }

    #[test]
    fn the_job_of_the_reply_as_it_is_printed() {
        let printed = format!("{{\n  \"cloudCredentialRotationJobId\": {ID}\",\n  \"message\": \"in-progress\"\n}}");
        assert_eq!(id_of_malformed(printed.as_bytes()), Some(JobId::new(ID)));
        for other in [
            format!("<html>\"cloudCredentialRotationJobId\": {ID}\"</html>"),
            format!("{{ \"jobid\": {ID}\" }}"),
            format!("{{ \"cloudCredentialRotationJobId\": {ID}0\" }}"),
            format!("{{ \"cloudCredentialRotationJobId\": {}\" }}", ID.replace('e', "z")),
            "{ \"cloudCredentialRotationJobId\": j876".to_owned(),
            "{ \"cloudCredentialRotationJobId\": ééééééééééééééééééééééé".to_owned(),
        ] {
            assert_eq!(id_of_malformed(other.as_bytes()), None, "{other}");
        }
        assert_eq!(id_of_malformed(b"{\xff"), None);
    }

    #[test]
    fn a_job_id_cannot_leave_its_path() {
        assert!(is_job_id(ID));
        for bad in ["", "a/b", "..", "a?b", "a%2fb", "a b", &"x".repeat(65)] {
            assert!(!is_job_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_may_hold_ids_or_jobs() {
        let two = Some(vec![JobId::new("ja"), JobId::new("jb")]);
        assert_eq!(ids_of_list(&json!({"jobs": ["ja", "jb", "../c", 7]})), two);
        assert_eq!(ids_of_list(&json!({"jobs": [{"jobid": "ja"}, {"id": "jb"}, {}]})), two);
        assert_eq!(ids_of_list(&json!(["ja", "jb"])), two);
        assert_eq!(ids_of_list(&json!({"resources": []})), None);
    }

    #[test]
    fn completed_is_success_only_without_an_error_inside() {
        assert_eq!(state(json!({"status": "COMPLETED"})), JobState::Succeeded);
        assert_eq!(
            state(json!({"status": "completed", "result": {"status": "success", "error": null}})),
            JobState::Succeeded
        );
        let stages = json!([{"name": "Validation", "state": "completed"}]);
        assert_eq!(state(json!({"status": "COMPLETED", "result": {"stages": stages}})), JobState::Succeeded);

        let server = json!({"status": "COMPLETED", "operationResponse": {"status": "error", "messages": ["service failed to start"]}});
        assert_eq!(failed(server), "completed with an error inside: service failed to start");
        let stages = json!([{"name": "Validation", "state": "completed"}, {"name": "Update", "state": "failed"}]);
        let stage = json!({"status": "COMPLETED", "result": {"stages": stages}});
        assert_eq!(failed(stage), "completed with an error inside: stage Update");
        for inner in [
            json!({"error": {"code": 500, "message": "no"}}),
            json!({"status": "failed", "message": "no"}),
            json!({"success": false, "details": ["no"]}),
            json!({"response": {"status": "error", "messages": ["no"]}}),
            json!("{\"status\":\"error\",\"messages\":[\"no\"]}"),
            json!([{"status": "error", "message": "no"}]),
        ] {
            assert_eq!(failed(json!({"status": "COMPLETED", "result": inner})), "completed with an error inside: no");
        }
        assert_eq!(failed(json!({"status": "COMPLETED", "error": "no"})), "completed with an error inside: no");
        let denied = json!({"jobid": ID, "status": "COMPLETED", "success": false, "messages": ["no"]});
        assert_eq!(failed(denied), "completed with an error inside: no");
    }

    #[test]
    fn what_has_not_ended_is_running_whatever_it_is_called() {
        for word in ["SUBMITTED", "EXECUTING", "CANCELLING", "UNAVAILABLE", "SUCCEEDED", "esriJobExecuting", ""] {
            assert_eq!(state(json!({"status": word})), JobState::Running(word.to_ascii_lowercase()), "{word}");
        }
        assert_eq!(state_of(&json!({"jobid": ID}), str::to_owned), None);
        assert_eq!(state_of(&json!({"status": 7}), str::to_owned), None);
    }

    #[test]
    fn what_ended_badly_says_why() {
        assert_eq!(failed(json!({"status": "FAILED", "messages": ["a", "b"]})), "failed: a; b");
        assert_eq!(failed(json!({"status": "FAILED", "result": {"status": "error", "messages": ["c"]}})), "failed: c");
        assert_eq!(failed(json!({"status": "CANCELLED", "result": {}})), "cancelled: it gives no reason");
        assert_eq!(failed(json!({"status": "TIMED OUT"})), "timed out: it gives no reason");
    }

    #[test]
    fn a_result_nested_for_ever_ends_somewhere() {
        let nested = |depth: usize, word: &str| {
            (0..depth).fold(json!({"status": word, "message": "no"}), |deep, _| json!({ "inner": deep }))
        };
        let completed = |result: Value| json!({"status": "COMPLETED", "result": result});
        assert_eq!(state(completed(nested(100, "success"))), JobState::Succeeded);
        assert_eq!(failed(completed(nested(100, "error"))), "completed with an error inside: no");
        let endless = completed(nested(1000, "success"));
        assert_eq!(failed(endless), "completed with an error inside: it is nested too deep");
    }
}

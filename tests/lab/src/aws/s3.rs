//! As much of S3 as proves that a key can read a bucket: listing it, and asking for an object. Path-style; nothing is ever written.

use axum::http::Method;

use super::serve::{Call, Caller};
use super::state::State;
use super::wire::{Content, Outcome};
use crate::form;
use crate::xml::escape;

pub(crate) fn execute(call: &Call, caller: &Caller, state: &State) -> Outcome {
    let path = form::decode(&call.request.path, false);
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    read(call, caller, state, bucket, key).about(bucket)
}

fn read(call: &Call, caller: &Caller, state: &State, bucket: &str, key: &str) -> Outcome {
    if !matches!(call.request.method, Method::GET | Method::HEAD) {
        return denied(caller, state, "s3:PutObject", &format!("{bucket}/{key}"));
    }
    if bucket.is_empty() {
        return denied(caller, state, "s3:ListAllMyBuckets", "*");
    }
    let Some(found) = state.buckets.get(bucket) else {
        return Outcome::error(404, "NoSuchBucket", "The specified bucket does not exist");
    };
    let (action, resource) = match key {
        "" => ("s3:ListBucket", bucket.to_owned()),
        key => ("s3:GetObject", format!("{bucket}/{key}")),
    };
    if !found.readers.contains(&caller.user) || state.is_denied(action) {
        return denied(caller, state, action, &resource);
    }
    if !key.is_empty() {
        // Our buckets are empty.
        return Outcome::error(404, "NoSuchKey", "The specified key does not exist.");
    }
    let query = form::pairs(&call.request.query);
    let max_keys = match form::value(&query, "max-keys").unwrap_or("1000").parse::<u32>() {
        Ok(n) => n,
        Err(_) => {
            return Outcome::error(400, "InvalidArgument", "Provided max-keys not an integer or within integer range");
        }
    };
    let prefix = escape(form::value(&query, "prefix").unwrap_or_default());
    let version = match form::value(&query, "list-type") {
        Some("2") => "<KeyCount>0</KeyCount>",
        _ => "<Marker></Marker>",
    };
    let xml = format!(
        "<Name>{}</Name><Prefix>{prefix}</Prefix>{version}<MaxKeys>{max_keys}</MaxKeys><IsTruncated>false</IsTruncated>",
        escape(bucket)
    );
    Outcome { status: 200, content: Content::Document("ListBucketResult", xml), executed: true, target: String::new() }
}

fn denied(caller: &Caller, state: &State, action: &str, resource: &str) -> Outcome {
    let (arn, resource) = (state.user_arn(&caller.user), format!("\"arn:aws:s3:::{resource}\""));
    let message = format!(
        "User: {arn} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows \
         the {action} action"
    );
    Outcome::error(403, "AccessDenied", message)
}

//! What the library asks of a store: the secret of a key, whether a request may pass, and the two reads.

use std::sync::{Arc, Mutex};

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{GetObjectInput, GetObjectOutput, ListObjectsV2Input, ListObjectsV2Output, Object, StreamingBlob};
use s3s::region::Region;
use s3s::{Body, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{KeyState, Lookup, State, lock};

/// Whose keys open the store.
pub(super) struct Keys(Lookup);

impl Keys {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self(lookup)
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    /// Unknown and inactive keys look the same, as they do at AWS.
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match (self.0)(access_key) {
            KeyState::Usable(secret) => Ok(SecretKey::from(secret)),
            KeyState::Unknown | KeyState::Inactive => Err(S3Error::with_message(
                S3ErrorCode::InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records.",
            )),
        }
    }
}

/// Which requests of a proven key pass.
pub(super) struct Doors(Arc<Mutex<State>>);

impl Doors {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self(state)
    }
}

#[async_trait::async_trait]
impl S3Access for Doors {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        let denied = || Err(S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied"));
        if request.credentials().is_none() || !matches!(request.s3_op().name(), "ListObjectsV2" | "GetObject") {
            return denied();
        }
        let bucket = request.s3_path().get_bucket_name().unwrap_or_default();
        match lock(&self.0).buckets.get(bucket) {
            Some(bucket) if bucket.denied => denied(),
            Some(_) => Ok(()),
            None => Err(S3Error::with_message(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist")),
        }
    }
}

/// The buckets.
pub(super) struct Store(Arc<Mutex<State>>);

impl Store {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self(state)
    }

    fn check_region(&self, signed_for: Option<&Region>) -> S3Result<()> {
        let signed_for = signed_for.map(Region::as_str).unwrap_or_default();
        match &lock(&self.0).region {
            Some(region) if region != signed_for => Err(S3Error::with_message(
                S3ErrorCode::AuthorizationHeaderMalformed,
                format!(
                    "The authorization header is malformed; the region '{signed_for}' is wrong; expecting '{region}'"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl S3 for Store {
    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.check_region(request.region.as_ref())?;
        let asked = request.input;
        let prefix = asked.prefix.unwrap_or_default();
        let max_keys = asked.max_keys.unwrap_or(1000).clamp(0, 1000);
        let state = lock(&self.0);
        let objects = state.buckets.get(&asked.bucket).into_iter().flat_map(|bucket| &bucket.objects);
        let found: Vec<_> = objects.filter(|(name, _)| name.starts_with(&prefix)).collect();
        let page = found.iter().take(usize::try_from(max_keys).unwrap_or_default());
        let contents: Vec<_> = page
            .map(|(name, content)| Object {
                key: Some((*name).clone()),
                size: i64::try_from(content.len()).ok(),
                ..Object::default()
            })
            .collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(asked.bucket),
            prefix: Some(prefix),
            max_keys: Some(max_keys),
            key_count: i32::try_from(contents.len()).ok(),
            is_truncated: Some(contents.len() < found.len()),
            contents: Some(contents),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_region(request.region.as_ref())?;
        let state = lock(&self.0);
        let object = state.buckets.get(&request.input.bucket).and_then(|bucket| bucket.objects.get(&request.input.key));
        let Some(content) = object else {
            return Err(S3Error::with_message(S3ErrorCode::NoSuchKey, "The specified key does not exist."));
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(content.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(content.clone()))),
            ..GetObjectOutput::default()
        }))
    }
}

//! Whose it all is: the rotator's credentials and a key as STS tells it, or the user as IAM does where there is no STS.
//!
//! Asks and judges. What becomes of another account is the engine's.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::AwsIam;
use super::client::Witness;
use super::faults::{self, Call};
use super::probe::{self, Owner};
use crate::model::{AccountIdentity, KeyId, Reason, Secret};
use crate::ports::{Fault, Probe};

impl AwsIam {
    /// Whose the rotator's credentials are.
    pub(super) async fn caller(&self) -> Result<Owner, Fault> {
        let call = Call::new("ask sts whose the rotator's credentials are");
        let witness = Witness::default();
        let answer = self.clients.sts.get_caller_identity().customize().interceptor(witness.clone()).send().await;
        let answer = self.advised("if this store has no STS, say sts = false", &call, &witness, answer)?;
        owner(&call, answer.arn(), answer.account())
    }

    /// The user as IAM knows it, where no STS tells whose the rotator's credentials are. The account in its ARN may be a name that
    /// many stores have (`ns1`, or none); the user's own id no second user has, and none that was made anew under the same name.
    pub(super) async fn user(&self) -> Result<AccountIdentity, Fault> {
        let call = self.call("look up", "iam:GetUser");
        let witness = Witness::default();
        let iam = self.clients.iam.get_user().user_name(&self.config.user);
        let answer = iam.customize().interceptor(witness.clone()).send().await;
        let answer = faults::judge(&call, &witness, answer)?;
        let user = answer.user().filter(|user| user.user_name() == self.config.user && probe::is_id(user.user_id()));
        let Some((user, owner)) = user.and_then(|user| Some((user, Owner::parse(user.arn())?))) else {
            return Err(Fault::Unknown(call.text("an answer without this user's id or arn")));
        };
        Ok(AccountIdentity::new(format!("{}/{}", owner.name(), user.user_id())))
    }

    /// Whether a key is one of the user's; `None`: it is. Where it is not, or not known, what that says of the key.
    pub(super) async fn foreign(&self, key: &KeyId, secret: &Secret) -> Result<Option<Probe>, Fault> {
        let ours = self.ours.get_or_try_init(|| self.caller()).await?;
        let call = Call::new(format!("ask sts whose key {key} is"));
        let witness = Witness::default();
        let sts = self.clients.sts_as(key, secret, self.config.probe.region());
        let answer = sts.get_caller_identity().customize().interceptor(witness.clone()).send().await;
        if let Err(error) = &answer
            && let Some(said) = probe::refused(&call, error)
        {
            return Ok(Some(said));
        }
        let answer = faults::judge(&call, &witness, answer)?;
        let owner = owner(&call, answer.arn(), answer.account())?;
        Ok(owner.check(&self.config.user, ours).err().map(|why| Probe::Wrong(call.text(why))))
    }

    /// What a question came to that a store of one's own may not know: a refusal of it may be the policy's mistake, also one for want
    /// of a right, since stores refuse what they do not have in these words too. That it has no such call, a store says with 501 as
    /// well; of a question that is an answer, and waiting does not change it.
    pub(super) fn advised<T, E>(
        &self,
        advice: &str,
        call: &Call,
        witness: &Witness,
        outcome: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, Fault>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let is_lacking = outcome.as_ref().err().and_then(faults::answer_of).is_some_and(faults::is_lacking);
        let advised = |why: String| format!("{why}; {advice} in its [aws.NAME]");
        faults::judge(call, witness, outcome).map_err(|fault| match fault {
            fault if !self.account.is_store() => fault,
            Fault::Refused { reason: reason @ (Reason::Refused | Reason::MissingRight), why } => {
                Fault::Refused { reason, why: advised(why) }
            }
            Fault::Unknown(why) if is_lacking => Fault::Refused { reason: Reason::Refused, why: advised(why) },
            other => other,
        })
    }
}

/// Whose an answer of GetCallerIdentity says a key is.
fn owner(call: &Call, arn: Option<&str>, account: Option<&str>) -> Result<Owner, Fault> {
    let owner = arn.and_then(Owner::parse).filter(|owner| account == Some(owner.account.as_str()));
    owner.ok_or_else(|| Fault::Unknown(call.text("an answer without an account or with an arn that does not fit it")))
}

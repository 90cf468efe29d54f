//! How a credential is tried: a token as its consumer uses it, a certificate as far as that goes without opening it.

use super::F5xc;
use super::client::edge_time;
use super::faults;
use crate::model::{KeyId, Reason, Secret};
use crate::net::redact::Redactor;
use crate::ports::{Fault, Probe};

impl F5xc {
    /// One request with the token, on a connection that shows nothing of rekeyd.
    pub(super) async fn probe_token(&self, id: &KeyId, token: &Secret) -> Result<Probe, Fault> {
        let call = self.call(&format!("try service credential {id}"));
        let answer = self.console.get_as(&call, &self.config.probe.path, token).await?;
        let is_json = serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|value| value.is_object());
        if answer.status == 200 && is_json {
            self.tokens.learn(id, token);
            return Ok(Probe::Works);
        }
        let redactor = Redactor::new([token]);
        let Some(said) = faults::said(&answer, &redactor).filter(|_| answer.status != 200) else {
            let why = call.text(format_args!("status {} and a body that is no answer of the console", answer.status));
            return Err(match answer.status {
                429 => Fault::Retry { after: answer.retry_after, why },
                _ => Fault::Unknown(why),
            });
        };
        match answer.status {
            401 => self.why_refused(id, call.text(said)).await,
            403 if !self.config.probe.must_read => {
                self.tokens.learn(id, token);
                Ok(Probe::Works)
            }
            403 => Ok(Probe::NotAllowed(call.text(said))),
            // Whatever it is, it is not about the token.
            _ => faults::judge(&call, answer, &redactor, "the credential that is tried").map(|_| Probe::Works),
        }
    }

    /// What a refused credential is: the console says the same of one that it does not know yet and of one that never was.
    async fn why_refused(&self, id: &KeyId, said: String) -> Result<Probe, Fault> {
        let (items, date) = self.items().await?;
        let now = date.unwrap_or_else(edge_time);
        Ok(match items.iter().find(|item| item.name == id.as_str()) {
            None => Probe::NotYet(format!("{said}; the console lists no credential {id}")),
            Some(item) if !item.is_alive(now) => {
                Probe::Wrong(format!("{said}; the console lists {id} as inactive or past its end"))
            }
            Some(_) => Probe::NotYet(format!("{said}; the console lists it, so not every server knows it yet")),
        })
    }

    /// A certificate is locked in a PKCS#12, which nothing here opens: every library for that brings a second set of
    /// ciphers. So it is asked for by its name; that the file and its password fit is not proven.
    pub(super) async fn probe_certificate(&self, id: &KeyId) -> Result<Probe, Fault> {
        match self.item(id).await {
            Ok(item) if item.is_alive(edge_time()) => Ok(Probe::Works),
            Ok(_) => Ok(Probe::Wrong(format!("the console shows {id} as inactive or past its end"))),
            Err(Fault::Refused { reason: Reason::NotFound, why }) => Ok(Probe::NotYet(why)),
            Err(fault) => Err(fault),
        }
    }
}

//! The logins of this process whose answers are not known yet.
//!
//! A command that asks while no daemon runs is given up sooner than a slow login is answered. Were its process to end then, a refusal
//! would come to nobody, and the next run would send the same wrong password again. So the process ends only once every password it
//! sent is answered, which takes no longer than one request may, and sends none after that.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ports::Attempt;

/// Counts them, for whoever wants to end the process.
#[derive(Clone)]
pub struct Attempts {
    /// `None` once the process ends.
    under_way: Arc<watch::Sender<Option<u32>>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts { under_way: Arc::new(watch::Sender::new(Some(0))) }
    }
}

impl Attempts {
    /// One more, until what is given is dropped. `None` where the process ends already.
    pub fn begin(&self) -> Option<Attempt> {
        let is_begun = self.under_way.send_if_modified(|count| match count {
            Some(count) => {
                *count += 1;
                true
            }
            None => false,
        });
        is_begun.then(|| Box::new(OneLess(self.clone())) as Attempt)
    }

    /// Whether one is under way.
    pub fn are_under_way(&self) -> bool {
        self.under_way.borrow().is_some_and(|count| count > 0)
    }

    /// Waits until none is under way. From then on none begins.
    pub async fn ended(&self) {
        let mut counts = self.under_way.subscribe();
        loop {
            let is_over = |count: &mut Option<u32>| match count {
                Some(0) => {
                    *count = None;
                    true
                }
                Some(_) | None => false,
            };
            self.under_way.send_if_modified(is_over);
            if counts.borrow_and_update().is_none() || counts.changed().await.is_err() {
                return;
            }
        }
    }
}

struct OneLess(Attempts);

impl Drop for OneLess {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count = count.map(|count| count.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_each_and_lets_none_begin_after_it() {
        let attempts = Attempts::default();
        let (one, two) = (attempts.begin().expect("nothing ends"), attempts.begin().expect("nothing ends"));
        assert!(attempts.are_under_way());
        let ends = async |within| tokio::time::timeout(Duration::from_secs(within), attempts.ended()).await.is_ok();
        assert!(!ends(1).await);
        drop(one);
        assert!(!ends(1).await, "the other is under way");
        let ending = tokio::spawn({
            let attempts = attempts.clone();
            async move { attempts.ended().await }
        });
        drop(two);
        ending.await.expect("it does not panic");
        assert!(!attempts.are_under_way() && attempts.begin().is_none());
        attempts.ended().await;
    }
}

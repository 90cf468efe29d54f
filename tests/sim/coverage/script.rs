//! The driver: a scene, and a hand that acts on what has just been written down.

use std::time::Duration;

use rekeyd::engine::{Command, Handle};
use rekeyd::model::{KeyId, Keyless, ServiceName};
use rekeyd::rotation::{Phase, ServiceState};

use crate::faults::Plan;
use crate::run::{History, end, in_virtual_time, live};
use crate::scene::Scene;
use crate::world::{Actor, Shared, World};

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// An event of this kind is written.
    Wrote(&'static str),
    /// It is in this phase.
    In(Phase),
    /// Nothing is open.
    AtRest,
    /// It is halted.
    Halted,
    /// This many seconds have passed since the line before.
    After(u64),
}

/// What is done then.
#[derive(Clone, Copy)]
pub enum What {
    /// An operator types this.
    Type(Say),
    /// The world changes.
    Change(fn(&mut World)),
}

/// An order, before the names it needs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Rotate,
    RotateCompromised,
    Pause,
    Resume,
    Retry,
    Rollback,
    Repush,
    /// To a role.
    Switch,
    SwitchBack,
    DespiteUse,
    /// The key that the targets hold, with its secret where a human made it.
    AdoptHeld,
    /// The key that was current when the rotation opened, or the first that leaves.
    AdoptOld,
    /// The targets hold what they hold.
    Abandon,
    AbandonNothing,
    /// The first stranger.
    Reclaim,
    ReclaimDisowned,
    Disown,
}

/// A scene and what is done in it.
pub struct Story {
    pub title: String,
    pub scene: Scene,
    pub stage: fn(&mut World),
    pub lines: Vec<(When, What)>,
}

/// The one service of every story, the object its keys live at, and its first target.
pub const SERVICE: &str = "store";
pub const OBJECT: &str = "aws-iam:main:store";
pub const TARGET: &str = "arcgis:prod:store-1";

/// No line is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// What the hand knows: the state as the journal has it.
pub struct Eye {
    shared: Shared,
    pub state: ServiceState,
    /// The kinds of the events written since the last look.
    pub fresh: Vec<&'static str>,
}

impl Eye {
    pub fn new(shared: &Shared) -> Eye {
        Eye { shared: shared.clone(), state: ServiceState::default(), fresh: Vec::new() }
    }

    /// Reads what has been written since.
    pub fn look(&mut self) {
        let world = self.shared.world();
        let records = world.shelves[0].records.get(&ServiceName::new(SERVICE)).map_or(&[][..], Vec::as_slice);
        for record in records.iter().skip(self.state.sequence as usize) {
            self.fresh.push(record.event.kind());
            if self.state.apply(&record.event, &record.at).is_err() {
                return;
            }
        }
    }

    /// Waits until something happens, or so long.
    pub async fn wait(&mut self, longest: Duration) {
        let stir = self.shared.world().stir.clone();
        let _ = tokio::time::timeout(longest, stir.notified()).await;
        self.look();
    }

    /// The order with its names.
    pub fn spell(&self, say: Say) -> Command {
        let (service, by) = (ServiceName::new(SERVICE), "uid 0 (root)".to_owned());
        let world = self.shared.world();
        let held = world.places[TARGET].holds.clone().unwrap_or_else(|| KeyId::new("NONE"));
        let first =
            |keys: &std::collections::BTreeSet<KeyId>| keys.first().cloned().unwrap_or_else(|| KeyId::new("NONE"));
        let adopt = |key: KeyId| {
            let known = world.find(&key).filter(|(_, key)| key.made_by == Actor::Human);
            let material = known.and_then(|_| world.material(&key));
            let secret = material.map(|material| material.secret().clone());
            let idle_slot_free = world.is_in_slot(&key);
            Command::Adopt { service: service.clone(), key, secret, idle_slot_free, by: by.clone() }
        };
        match say {
            Say::Rotate | Say::RotateCompromised => {
                Command::Rotate { services: vec![service], compromised: say == Say::RotateCompromised, by }
            }
            Say::Pause => Command::Pause { service, by },
            Say::Resume => Command::Resume { service, by },
            Say::Retry => Command::Retry { service, by },
            Say::Rollback => Command::Rollback { service, by },
            Say::Repush => Command::Repush { service, target: None, by },
            Say::Switch => Command::Switch { service, to: Some(Keyless::IamRole), no_way_back: true, by },
            Say::SwitchBack => Command::Switch { service, to: None, no_way_back: true, by },
            Say::DespiteUse => Command::RetireDespiteUse { service, by },
            Say::AdoptHeld => adopt(held),
            Say::AdoptOld => {
                let former = self.state.rotation.as_ref().map(|rotation| rotation.former.key.clone());
                adopt(former.or(self.state.leaving.keys().next().cloned()).unwrap_or(held))
            }
            Say::Abandon => Command::Abandon { service, holds: Some(held), by },
            Say::AbandonNothing => Command::Abandon { service, holds: None, by },
            Say::Reclaim => Command::Reclaim { service, key: first(&self.state.strangers), by },
            Say::ReclaimDisowned => Command::Reclaim { service, key: first(&self.state.disowned), by },
            Say::Disown => Command::Disown { service, key: first(&self.state.strangers), by },
        }
    }

    /// Types an order, and does not wait for the answer: several may queue behind one effect.
    pub fn say(&self, handle: &Handle, say: Say) {
        let (command, handle, shared) = (self.spell(say), handle.clone(), self.shared.clone());
        tokio::spawn(async move {
            let reply = handle.order(command).await;
            shared.world().tell(|| format!("the hand types {say:?}: {reply:?}"));
        });
    }
}

impl Story {
    /// Plays it; says so where a line's time never comes.
    pub fn play(&self) -> (History, Option<String>) {
        in_virtual_time(async {
            let shared = Shared::new(Plan::calm(), true);
            self.scene.build(&shared);
            (self.stage)(&mut shared.world());
            let (mut eye, mut next, mut stuck) = (Eye::new(&shared), 0, None);
            live(&shared, &self.scene, 0, async |handle: &Handle| {
                while let Some((when, what)) = self.lines.get(next) {
                    eye.look();
                    if !comes(*when, &mut eye, &shared).await {
                        stuck = Some(format!("{}: line {next}, {when:?}, never came", self.title));
                        return;
                    }
                    next += 1;
                    match what {
                        What::Type(say) => eye.say(handle, *say),
                        What::Change(change) => change(&mut shared.world()),
                    }
                }
            })
            .await;
            (end(&shared, 0), stuck)
        })
    }
}

async fn comes(when: When, eye: &mut Eye, shared: &Shared) -> bool {
    let began = shared.world().now();
    loop {
        let is = match when {
            When::Wrote(kind) => {
                // Each event is waited for once, in the order of the lines.
                let at = eye.fresh.iter().position(|fresh| *fresh == kind);
                if let Some(at) = at {
                    eye.fresh.drain(..=at);
                }
                at.is_some()
            }
            When::In(phase) => eye.state.phase() == Some(phase),
            When::AtRest => eye.state.rotation.is_none(),
            When::Halted => eye.state.halt.is_some(),
            When::After(seconds) => shared.world().now() >= began + Duration::from_secs(seconds),
        };
        if is {
            return true;
        }
        let waited = shared.world().now() - began;
        if waited > PATIENCE {
            return false;
        }
        let longest = if let When::After(seconds) = when { Duration::from_secs(seconds) - waited } else { PATIENCE };
        eye.wait(longest + Duration::from_millis(1)).await;
    }
}

//! The mistakes: what each does, who made it, where it shows, and the promise that catches it.

use super::Mistake;
use super::Struck::{Any, Calm, Nth};
use super::{asking, deciding, scenes, writing};
use crate::faults::Op;
use crate::faults::Strike::{CrashLate, LateEdge, Lost, Refused, ReplyLost, ServerError, WriteFails};
use crate::oracle::Promise::{FreshEvidence, NoOutage, NoUntrackedKey, NothingForgotten, StrangersSafe};

const NONE: &str = "no name known";

#[rustfmt::skip]
pub const MISTAKES: &[Mistake] = &[
    // A mint.
    Mistake {
        name: "the client sends a mint again when its answer is lost", seen_at: "warden#559",
        plant: asking::mint_retried, scene: scenes::plain, struck: Any(Op::Mint, &[ReplyLost, ServerError]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "a mint of a key that is shown once is repeated for the same intent", seen_at: "AWS Secrets Manager: the whole Lambda is retried",
        plant: deciding::mint_sent_again, scene: scenes::plain, struck: Any(Op::Mint, &[Lost, LateEdge]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "no answer counts as failed, and another key is minted at once", seen_at: NONE,
        plant: deciding::unknown_is_failed, scene: scenes::plain, struck: Any(Op::Mint, &[LateEdge]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "an unknown mint is settled before its horizon has passed", seen_at: NONE,
        plant: deciding::settled_at_once, scene: scenes::plain, struck: Any(Op::Mint, &[LateEdge]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "a mint that may be repeated is repeated under another name", seen_at: "warden#559",
        plant: asking::fresh_name_for_each_send, scene: scenes::client_named, struck: Any(Op::Mint, &[ReplyLost]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "the intent to mint is written after the mint", seen_at: "Vault aws/rotation.go, cloud-key-rotator",
        plant: writing::mint_intent_after_the_mint, scene: scenes::plain, struck: Calm, promise: NoUntrackedKey,
    },
    Mistake {
        name: "a write that failed counts as done", seen_at: "certmagic: a failed persist is only logged",
        plant: writing::failed_write_is_done, scene: scenes::plain, struck: Any(Op::Write("mint_begun"), &[WriteFails]), promise: NoUntrackedKey,
    },
    Mistake {
        name: "a start takes the last intent for torn and forgets it", seen_at: NONE,
        plant: writing::last_intent_cut_off, scene: scenes::plain, struck: Nth(&[(Op::Mint, 0, CrashLate)]), promise: NoUntrackedKey,
    },
    // Whose key it is.
    Mistake {
        name: "the oldest key makes room for the new one", seen_at: "Vault aws/rotation.go, Infisical",
        plant: asking::oldest_makes_room, scene: scenes::no_room, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "every other key is deleted with the old one", seen_at: "warden#536, warden#604",
        plant: asking::all_others_deleted, scene: scenes::a_stranger, struck: Calm, promise: StrangersSafe,
    },
    Mistake {
        name: "a key found after an unknown mint is ours, whoever else mints there", seen_at: "warden#604",
        plant: deciding::found_is_ours, scene: scenes::a_stranger_meanwhile, struck: Nth(&[(Op::Mint, 0, Lost)]), promise: StrangersSafe,
    },
    Mistake {
        name: "a key found after an unknown mint is ours, whatever its label says", seen_at: "warden#604",
        plant: deciding::found_is_ours, scene: scenes::a_stranger_without_label, struck: Nth(&[(Op::Mint, 0, Lost)]), promise: StrangersSafe,
    },
    Mistake {
        name: "a stranger is taken on as the key in use", seen_at: "cloud-key-rotator: first key listed",
        plant: deciding::stranger_taken_on, scene: scenes::a_stranger_untold, struck: Calm, promise: StrangersSafe,
    },
    Mistake {
        name: "a target changed by hand is overwritten", seen_at: NONE,
        plant: deciding::no_look_before_the_push, scene: scenes::changed_by_hand, struck: Calm, promise: StrangersSafe,
    },
    Mistake {
        name: "the slot in use is regenerated", seen_at: "azure-docs#66111",
        plant: asking::slot_in_use_replaced, scene: scenes::slots, struck: Calm, promise: NoOutage,
    },
    // A push.
    Mistake {
        name: "the old key is deleted as soon as the new one is minted", seen_at: "vault#31758, cloud-key-rotator",
        plant: asking::revoked_at_once, scene: scenes::plain, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "the old key is deleted when the first of two targets is confirmed", seen_at: "cloud-key-rotator",
        plant: asking::first_target_is_enough, scene: scenes::two_targets, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "a fan-out hands the key to its first target only", seen_at: "cloud-key-rotator: first error ends the run",
        plant: asking::only_the_first_target, scene: scenes::blind_two, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "a new key is pushed without a probe", seen_at: "vault#8413",
        plant: deciding::no_probe_before_the_push, scene: scenes::slow_to_spread, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "a job that ended counts as a job that worked", seen_at: "SecuritySkills#1820",
        plant: asking::ended_is_success, scene: scenes::blind_failing, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "a job that is not found counts as done", seen_at: NONE,
        plant: asking::vanished_is_success, scene: scenes::blind_forgetting, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "the job's word is enough, and nothing is read back", seen_at: "SecuritySkills#1820",
        plant: deciding::job_is_enough, scene: scenes::hollow, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "a job found after a lost answer is ours", seen_at: NONE,
        plant: deciding::guessed_job_is_ours, scene: scenes::a_job_of_others, struck: Nth(&[(Op::Push, 0, Lost)]), promise: NoOutage,
    },
    Mistake {
        name: "equal ends of two secrets count as proof", seen_at: NONE,
        plant: deciding::equal_ends_are_proof, scene: scenes::ends_alike, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "a push without an answer counts as refused, and the new key is taken back", seen_at: NONE,
        plant: deciding::server_error_is_no, scene: scenes::plain, struck: Any(Op::Push, &[LateEdge]), promise: NoOutage,
    },
    Mistake {
        name: "a job past its time counts as dead, and the new key is taken back", seen_at: NONE,
        plant: deciding::slow_job_is_dead, scene: scenes::slow, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "the intent to push is written after the push", seen_at: NONE,
        plant: writing::push_intent_after_the_push, scene: scenes::plain,
        struck: Nth(&[(Op::Push, 0, CrashLate), (Op::Push, 1, Refused)]), promise: NoOutage,
    },
    Mistake {
        name: "a restored journal is believed, and its stale key pushed again", seen_at: NONE,
        plant: deciding::journal_is_believed, scene: scenes::journal_restored, struck: Calm, promise: NoOutage,
    },
    // A retire.
    Mistake {
        name: "the old key has no soak", seen_at: "vault#31758",
        plant: deciding::no_soak, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "the soak is the short one although no read-back could tell", seen_at: NONE,
        plant: deciding::short_soak_unproven, scene: scenes::hidden, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "a disabled key is not watched", seen_at: NONE,
        plant: deciding::no_watch, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "the old key is deleted and never was disabled", seen_at: "Infisical since 7a4a877",
        plant: asking::never_disabled, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "the old key is retired on the clock alone", seen_at: "Infisical, Akeyless: overlap by time",
        plant: deciding::retired_on_the_clock, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "evidence is gathered before the soak and acted on after it", seen_at: NONE,
        plant: deciding::evidence_before_the_soak, scene: scenes::hidden, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "targets are read back once and never again", seen_at: NONE,
        plant: asking::read_back_once, scene: scenes::put_back_by_hand, struck: Calm, promise: NoOutage,
    },
    Mistake {
        name: "the current key is probed once and never again", seen_at: NONE,
        plant: asking::probed_once, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "the provider is asked once which account it is", seen_at: NONE,
        plant: asking::account_asked_once, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "nobody asks when the old key was used last", seen_at: "every rotator that was surveyed",
        plant: asking::last_use_never_asked, scene: scenes::plain, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "the use of the old key is seen and ignored", seen_at: NONE,
        plant: deciding::use_is_ignored, scene: scenes::used_by_others, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "a key that somebody enabled again is deleted all the same", seen_at: NONE,
        plant: deciding::enabled_again_is_ignored, scene: scenes::enabled_by_hand, struck: Calm, promise: FreshEvidence,
    },
    Mistake {
        name: "time is what the wall clock says", seen_at: NONE,
        plant: deciding::wall_clock_alone, scene: scenes::clock_ahead, struck: Calm, promise: FreshEvidence,
    },
    // What should be gone.
    Mistake {
        name: "the first page of a listing is taken for the whole", seen_at: NONE,
        plant: asking::first_page_of_a_listing, scene: scenes::plain, struck: Calm, promise: NothingForgotten,
    },
    Mistake {
        name: "a deletion that was answered is proof that the key is gone", seen_at: NONE,
        plant: deciding::answered_is_gone, scene: scenes::plain, struck: Calm, promise: NothingForgotten,
    },
    Mistake {
        name: "one listing without the key is proof that it is gone", seen_at: NONE,
        plant: deciding::one_listing_is_enough, scene: scenes::plain, struck: Calm, promise: NothingForgotten,
    },
    Mistake {
        name: "a refused deletion is forgotten", seen_at: "Infisical#7483, labs#6162",
        plant: deciding::debt_forgotten, scene: scenes::plain, struck: Any(Op::Delete, &[Refused]), promise: NothingForgotten,
    },
    Mistake {
        name: "a rotation is closed before the old key is gone", seen_at: "Infisical#7483",
        plant: deciding::closed_before_gone, scene: scenes::plain, struck: Calm, promise: NothingForgotten,
    },
];

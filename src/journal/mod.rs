//! The journal: the append-only record of what was intended and what happened, and the sealed secrets that go with it.
//!
//! The contract, in words:
//!
//! - **Durable before acted on.** When `append` returns, the event is on the disk; when it fails, the caller acts
//!   neither as if it were nor as if it were not: it exits and replays what is there.
//! - **One transaction.** An event and the secret it brings are both there or neither.
//! - **Append only.** No event is ever changed or removed, by nobody; the schema itself refuses.
//! - **One chain per service** ([`chain`]). A row that does not verify ends its service's history there, and no other's.
//!   What cannot be put down to one service (a broken page, a service's own row) stops the whole journal, because a service
//!   whose past silently vanished would look like a new one.
//! - **A file format** ([`wire`]). What a newer rekeyd wrote is refused, never guessed at.
//! - **No secret in clear.** Secrets stand sealed in a table of their own, and shredding one ends in a truncating checkpoint,
//!   so that neither the database nor its log has the sealed bytes any more. What the file system or the disk keeps of
//!   overwritten blocks is beyond it.
//! - **One writer.** A lock file keeps a second process out; readers need no lock.
//!
//! It decides nothing, retries nothing but the one commit the ballast is for, and knows no rule of the rotation.

pub mod chain;
mod material;
pub mod sqlite;
pub mod wire;

//! The lab as a program, for anyone who writes against these systems, wants to try a rotation, or to see one fail.
//!
//! ```text
//! rekeyd-lab --dir DIR [--propagation-ms N] [--listing-lag-ms N] [--job-ms N] [--tls]      both clouds, an ArcGIS of each product
//! rekeyd-lab arcgis --product server --version 12.0 --dir DIR …                            one ArcGIS of one's choice
//! rekeyd-lab azure --dir DIR …                                                             an Azure alone
//! ```
//!
//! `--help` says what every argument means; `program::arguments` is where it stands.
//!
//! It prints endpoints and ids. Credentials are never printed; they are files in DIR, readable by their owner only. The first form
//! writes:
//!
//! | file | holds |
//! |---|---|
//! | `aws-access-key-id`, `aws-secret-access-key` | the administrator `rotator`, who may do `iam:*` |
//! | `azure-client-id`, `azure-client-secret` | the application `rotator`, who may do everything in Azure |
//! | `arcgis-client-secret` | an application, whose passwords the rotator may change |
//! | `kubernetes-password`, `server-password` | the account `rotator` of each ArcGIS |
//! | `kubernetes-ca.pem`, `server-ca.pem` | with `--tls`: whom to trust |
//!
//! The second form has one ArcGIS, and so `password`, `ca.pem`, and with `--demand-certificate` `client.pem` and `client-key.pem`.
//!
//! The third has `azure-client-id`, `azure-client-secret`, a `NAME-client-secret` for every application, and with `--tls` `azure-ca.pem`.
//!
//! In the first form every ArcGIS has in either cloud one provider and one cloud service with a key of its own, of an IAM user and of a
//! storage account of its own. In this one and the second, what holds a key reads its bucket or container forty times a second with the
//! key it holds; how often it was refused is printed every ten seconds, and must stay 0. A control endpoint on loopback does mischief: `program::control`.
//!
//! It ends on SIGTERM or Ctrl-C, and forgets everything.

mod program;

use std::process::ExitCode;

use clap::Parser;

use crate::program::arguments::Arguments;

#[tokio::main]
async fn main() -> ExitCode {
    // Ends with 2 and a sentence where the words make no sense.
    let arguments = Arguments::parse().checked();
    match program::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("rekeyd-lab: {why}");
            ExitCode::FAILURE
        }
    }
}

//! The words of the command line, what each means, and which of them contradict each other.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use rekeyd_lab::{
    ArcGisOptions, Azure, AzureOptions, AzurePorts, ItemView, JobPath, PasswordPolicy, Product, SelfSigned, Spelling,
    WriteLimit,
};

/// What the control endpoint understands.
pub(crate) const MISCHIEF: &str = "\
The control endpoint (its address is printed as `control`):
  GET  /lab/state   what there is: keys by id, jobs, and how often each consumer was refused
  POST /lab/fault   JSON: {\"system\", \"operation\", \"fault\", and what the fault needs: \"status\", \"ms\", \"times\" or \"text\"}
  POST /lab/site    JSON: {\"system\", and any of the following}: how an ArcGIS is from now on
                    \"read_only\", \"locked\", \"down\", \"privileged\": true or false;  \"upgrade\": a status of admin/upgrade;
                    \"node_role\": false takes the role from the nodes with which a service of type IAM-ROLE reads its bucket;
                    \"version\": \"12.1\";  \"job_ms\": 500;  \"expire_tokens\": true;  \"unlock_account\": true
  POST /lab/azure   JSON, any of the following: how Azure is from now on, and what somebody does in its portal
                    \"down\", \"fail_operations\" (those of Cosmos DB): true or false;  \"date_skew_s\": 400;
                    \"deny\", \"allow\": a right of the rotator's, such as Microsoft.Storage/storageAccounts/listKeys/action or
                    Application.ReadWrite.OwnedBy;  \"lock\", \"unlock\": an ARM id that is read-only or no longer;
                    \"propagation_ms\", \"settling_ms\", \"removal_lag_ms\", \"listing_lag_ms\", \"key_lag_ms\": as the arguments;
                    of one \"account\", by its name: \"regenerate\": a slot;  \"keys_allowed\": true or false;
                    of one \"application\", by its name: \"add_password\": true, and DIR/NAME-client-secret is the new one;
                    \"remove_password\": its key id;  \"data_allowed\" (to read blobs), \"owned\": true or false

  system      aws, azure, kubernetes, server
  operation   of ArcGIS: generateToken, root, mode, upgrade, info, providers, provider, services, service, status,
              credential/update, credential/add, jobs, job, findItems, item, validateDataItem, edit, validate;
              or job-script: how the next job goes; of aws: an IAM or STS action, S3Get, S3Head, ConsumerGet; of azure: Token,
              GetAccount, ListKeys, RegenerateKey, OperationStatus, OperationResult, GetApplication, AddPassword, RemovePassword,
              ListContainers, ListBlobs, GetBlob, GetBlobProperties, ConsumerToken, ConsumerGet
  fault       lost-reply, error-after-commit (status), late (ms), delayed (ms), throttle, error (status), slow (ms),
              drop-before, refuse (text), html, redirect (text): for the next call of the operation
  job-script  complete, fail (text), fail-after-store (text), inner-error (text), failed-stage (text), roll-back,
              timed-out, timed-out-after-store, unavailable (times), vanish, liar, slow (ms), mangled

  curl -s $CONTROL/lab/fault -H 'content-type: application/json' \\
       -d '{\"system\":\"server\",\"operation\":\"job-script\",\"fault\":\"fail\",\"text\":\"the store cannot be reached\"}'";

/// What a client does first, for somebody who never spoke to an ArcGIS.
const FIRST_STEPS: &str = "\
A first conversation, with the admin address and the login that are printed (a portal's tokens begin at sharing/rest instead):
  TOKEN=$(curl -s $ADMIN/generateToken -d username=rotator -d client=requestip -d f=json \\
               --data-urlencode password@<(tr -d '\\n' <$DIR/password) | jq -r .token)
  curl -s -H \"X-Esri-Authorization: Bearer $TOKEN\" \"$ADMIN?f=json\"
  curl -s -H \"X-Esri-Authorization: Bearer $TOKEN\" \"$ADMIN/cloud/services?maskedSecret=true&f=json\"
  curl -s $ADMIN/cloud/services/uqsip6c2vm/credential/update -d f=json -d \"token=$TOKEN\" --data-urlencode \\
       'credential={\"type\":\"ACCESS-KEY\",\"secret\":{\"access_key\":\"AKIA…\",\"secret_key\":\"…\"}}'
  curl -s -H \"X-Esri-Authorization: Bearer $TOKEN\" \"$ADMIN/jobs/$JOB?f=json\"
(for bash; the password is read from its file, so that no other user sees it in the list of processes)

Everything is written from Esri's documents; where they are silent it is a guess, and the comments in tests/lab/src/arcgis say so.";

/// What a client does first, for somebody who never spoke to Azure.
const FIRST_STEPS_OF_AZURE: &str = "\
A first conversation, with the addresses and ids that are printed:
  ASK() { curl -s $ENTRA/$TENANT/oauth2/v2.0/token -d grant_type=client_credentials -d client_id=$(cat $DIR/azure-client-id) \\
               --data-urlencode client_secret@<(tr -d '\\n' <$DIR/azure-client-secret) -d scope=$1/.default | jq -r .access_token; }
  ARM_TOKEN=$(ASK https://management.azure.com)
  curl -s -H \"Authorization: Bearer $ARM_TOKEN\" -d '' \"$ARM$ACCOUNT_ID/listKeys?api-version=2024-01-01\"
  curl -s -H \"Authorization: Bearer $ARM_TOKEN\" --json '{\"keyName\":\"key2\"}' \\
       \"$ARM$ACCOUNT_ID/regenerateKey?api-version=2024-01-01\"
  curl -s -H \"Authorization: Bearer $(ASK https://graph.microsoft.com)\" --json '{\"passwordCredential\":{\"displayName\":\"new\"}}' \\
       $GRAPH/v1.0/applications/$OBJECT_ID/addPassword
  curl -s -H \"Authorization: Bearer $(ASK https://storage.azure.com)\" -H 'x-ms-version: 2025-01-05' \\
       \"$BLOB/gisstore/tiles?restype=container&comp=list\"
(for bash; the secret is read from its file, so that no other user sees it in the list of processes)

Everything is written from Microsoft's documents and what its own libraries send; where they are silent it is a guess, and the comments
in tests/lab/src/azure say so.";

/// Strict stand-ins of ArcGIS Enterprise, AWS and Azure on 127.0.0.1, with faults on demand.
///
/// Without a subcommand: an AWS (IAM, STS, S3), an Azure (Entra, Resource Manager, Graph, Blob service), an ArcGIS Enterprise on Kubernetes
/// 12.0 and an ArcGIS Server 12.0, each with one cloud service in either cloud that holds a key of its own and uses it all the time. Endpoints and ids are printed, then `ready`; secrets are files in
/// DIR. It ends on SIGTERM or Ctrl-C and forgets everything.
#[derive(Debug, Parser)]
#[command(name = "rekeyd-lab", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = MISCHIEF)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    one: Option<One>,
    #[command(flatten)]
    pair: Pair,
}

#[derive(Debug, Subcommand)]
enum One {
    /// One ArcGIS of the product and version of your choice, for whoever writes a client of its admin API.
    ///
    /// It starts with the providers, services, data items and backup stores that you name, or with a few that show what there can be.
    /// Behind it runs an AWS whose keys they hold: every service and data item reads its bucket all the time with the key it holds at
    /// that moment, and every refusal is counted, so that a rotation that goes wrong is seen as what it is. What exists and how it
    /// answers follows product and version; every switch below is a doubt that the documents leave, or a way a site is set up.
    #[command(name = "arcgis", after_long_help = format!("{FIRST_STEPS}\n\n{MISCHIEF}"))]
    ArcGis(Box<ArcGisArguments>),
    /// An Azure alone, for whoever writes a client of its key management or its Blob service.
    ///
    /// It is one tenant with one subscription: the token endpoint of Entra, Azure Resource Manager for the keys of accounts, Microsoft Graph
    /// for the passwords of applications, and the Blob service, which takes keys, SAS and tokens and checks every one. It starts with the
    /// accounts and applications that you name, or with one of each; an application `rotator` may do everything.
    #[command(after_long_help = format!("{FIRST_STEPS_OF_AZURE}\n\n{MISCHIEF}"))]
    Azure(Box<AzureArguments>),
}

/// Which of the three forms.
pub(crate) enum Form {
    Pair(Pair),
    ArcGis(Box<ArcGisArguments>),
    Azure(Box<AzureArguments>),
}

/// An AWS, an Azure and both products.
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// Where the secrets are kept, one file each, readable by their owner only. Made if it is not there; older files are replaced.
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,
    /// How long a fresh key is unknown at STS, IAM and S3, and a regenerated one at Azure's Blob service, in milliseconds.
    #[arg(long = "propagation-ms", value_name = "MS", value_parser = millis, default_value = "0")]
    pub(crate) propagation: Duration,
    /// How long ListAccessKeys does not show a fresh key, and still shows a deleted one, in milliseconds.
    #[arg(long = "listing-lag-ms", value_name = "MS", value_parser = millis, default_value = "0")]
    pub(crate) listing_lag: Duration,
    /// How long a credential job of ArcGIS takes, in milliseconds.
    #[arg(long = "job-ms", value_name = "MS", value_parser = millis, default_value = "2000")]
    pub(crate) job: Duration,
    /// ArcGIS speaks HTTPS, with a certificate of an authority nobody knows.
    #[arg(long)]
    pub(crate) tls: bool,
}

impl Pair {
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().expect("clap asks for --dir wherever there is no subcommand")
    }
}

/// One ArcGIS. No account's password, and no secret, is an argument: other users of the machine can read those.
#[derive(Debug, Args)]
pub(crate) struct ArcGisArguments {
    /// Which product answers.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: ProductWord,
    /// The version it is, such as 11.2, 11.5 or 12.0: it decides what exists.
    ///
    /// cloud/… is there on Kubernetes from 11.2 and on Server from 12.0. `credential/update` of a service came with 12.0; before,
    /// `credential/add` replaces a key, from then on it refuses where there is one. Of a provider, Kubernetes has `credential/update` and
    /// Server `credential/add` too.
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = version, default_value = "12.0")]
    version: String,
    /// The path before /admin; it may have slashes inside.
    #[arg(long, value_name = "PATH", value_parser = context, default_value = "arcgis")]
    context: String,
    /// Where the secrets are kept, one file each, readable by their owner only; made if it is not there.
    ///
    /// `password` of the account; `aws-access-key-id` and `aws-secret-access-key` of the AWS's administrator; with --tls `ca.pem`, whom to
    /// trust; with --demand-certificate `client.pem` and `client-key.pem`. Older files are replaced, and nothing of this is printed.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The port of 127.0.0.1 on which it listens; 0 is any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    /// The port of 127.0.0.1 of the control endpoint; 0 is any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) control_port: u16,

    /// A cloud provider, and the user whose key it holds; without :USER it holds none. May be repeated.
    ///
    /// NAME is AWS, AZURE or GCP. USER is a word of yours: places that say the same word hold the same key.
    #[arg(long, value_name = "ID:NAME[:USER]", value_parser = provider, help_heading = "What it starts with")]
    provider: Vec<ProviderWords>,
    /// An S3 cloud service of a provider, and the user whose key it holds itself; without :USER it inherits its provider's. May be
    /// repeated.
    #[arg(long, value_name = "ID:PROVIDER:BUCKET[:USER]", value_parser = service, help_heading = "What it starts with")]
    service: Vec<ServiceWords>,
    /// A registered cloud store, /cloudStores/NAME, with a copy of the user's key. May be repeated.
    ///
    /// The bucket may be followed by a folder: imagery:gis-store/tiles:main
    #[arg(long, value_name = "NAME:BUCKET:USER", value_parser = data_item, help_heading = "What it starts with")]
    data_item: Vec<ItemWords>,
    /// A backup store on one of the services, for system/disasterrecovery/stores/NAME/validate. Kubernetes only. May be repeated.
    ///
    /// Where none of these four is named, there are: provider s7my5d949q with a key; service wpjkp9s7ub that inherits it; service
    /// uqsip6c2vm with a key of its own, and on Kubernetes the backup store `nightly` on it; data item /cloudStores/imagery with a copy
    /// of the provider's key. A version without cloud/… has the data item only.
    #[arg(long, value_name = "NAME:SERVICE", value_parser = backup_store, help_heading = "What it starts with")]
    backup_store: Vec<StoreWords>,

    /// The one account there is. It may do everything.
    #[arg(long, value_name = "NAME", default_value = "rotator", help_heading = "Logging in")]
    username: String,
    /// Takes the account's password from this file; otherwise one is made up.
    #[arg(long, value_name = "FILE", help_heading = "Logging in")]
    pub(crate) password_file: Option<PathBuf>,
    /// No token is granted for longer, whatever was asked.
    #[arg(long, value_name = "MINUTES", default_value_t = 20160, help_heading = "Logging in")]
    token_minutes_max: u32,
    /// Every token lives exactly this long, in milliseconds, whatever was asked.
    #[arg(long = "token-ttl-ms", value_name = "MS", value_parser = millis, help_heading = "Logging in")]
    token_ttl: Option<Duration>,
    /// How long five wrong passwords within fifteen minutes lock the account, in milliseconds.
    #[arg(long = "lockout-ms", value_name = "MS", value_parser = millis, default_value = "900000", help_heading = "Logging in")]
    lockout: Duration,
    /// Federated with a portal: the account is the portal's, logs in there, and its tokens count only when bound to a referer. Server
    /// only; Kubernetes always has a portal.
    #[arg(long, help_heading = "Logging in")]
    federated: bool,

    /// How long a credential job takes, in milliseconds; what it was sent is stored half-way.
    #[arg(long = "job-ms", value_name = "MS", value_parser = millis, default_value = "2000", help_heading = "Jobs")]
    job: Duration,
    /// Where Server shows its jobs: the credential pages say jobs/ID, the page of the job itself system/jobs/ID. Server only.
    #[arg(long, value_name = "WHERE", default_value = "both", help_heading = "Jobs")]
    job_path: JobPathWord,
    /// A second credential job is refused while one runs, with "Another administrative operation…".
    #[arg(long, help_heading = "Jobs")]
    one_job_at_a_time: bool,

    /// The code of an error is the HTTP status too; otherwise every answer is 200, errors included, as ArcGIS mostly does it.
    #[arg(long, help_heading = "How it answers")]
    real_status_codes: bool,
    /// The answer to an accepted credential lacks a quote, exactly as the documents print it.
    #[arg(long, help_heading = "How it answers")]
    malformed_job_reply: bool,
    /// clouds/… works as well as cloud/…: the documents' POST examples say the one, everything else the other.
    #[arg(long, help_heading = "How it answers")]
    accept_clouds_alias: bool,
    /// Which names an S3 secret's fields may have in a request: secret_key (snake), secretKey (camel), or both.
    #[arg(long, value_name = "SPELLING", default_value = "snake", help_heading = "How it answers")]
    spelling: SpellingWord,
    /// There is no cloud/providers/ID/credential/update: its page was never found. Server only.
    #[arg(long, help_heading = "How it answers")]
    no_provider_update: bool,
    /// How a data item shows its connection string.
    #[arg(long, value_name = "VIEW", default_value = "sealed", help_heading = "How it answers")]
    item_view: ItemViewWord,
    /// There is no data/validateDataItem.
    #[arg(long, help_heading = "How it answers")]
    no_validate_items: bool,

    /// HTTPS, with a certificate for localhost, 127.0.0.1 and gis.example.com of an authority nobody knows (DIR/ca.pem).
    #[arg(long, help_heading = "TLS")]
    tls: bool,
    /// A certificate that signed itself, for this one name, as a fresh ArcGIS has one (DIR/ca.pem is the certificate itself).
    #[arg(long, value_name = "NAME", requires = "tls", help_heading = "TLS")]
    self_signed: Option<String>,
    /// The certificate that signed itself says CA:TRUE, as `openssl req -x509` makes them.
    #[arg(long, requires = "self_signed", help_heading = "TLS")]
    self_signed_authority: bool,
    /// No handshake without a client certificate (DIR/client.pem, DIR/client-key.pem), as a web tier with PKI does it.
    #[arg(long, requires = "tls", help_heading = "TLS")]
    pub(crate) demand_certificate: bool,

    /// How long a fresh key is unknown at the AWS behind it, in milliseconds.
    #[arg(long = "propagation-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "The AWS behind it")]
    pub(crate) propagation: Duration,
}

/// One Azure. No secret is an argument.
#[derive(Debug, Args)]
pub(crate) struct AzureArguments {
    /// Where the secrets are kept, one file each, readable by their owner only; made if it is not there.
    ///
    /// `azure-client-id` and `azure-client-secret` of the application `rotator`; `NAME-client-secret` of every other application; with --tls
    /// `azure-ca.pem`, whom to trust. Older files are replaced, and nothing of this is printed. The keys of accounts are for a client to list.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The port of 127.0.0.1 of the token endpoint; 0 is any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    entra_port: u16,
    /// The port of Azure Resource Manager.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    arm_port: u16,
    /// The port of Microsoft Graph.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    graph_port: u16,
    /// The port of the Blob service.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    blob_port: u16,
    /// The port of the control endpoint.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) control_port: u16,
    /// HTTPS everywhere, with a certificate for localhost and 127.0.0.1 of an authority nobody knows (DIR/azure-ca.pem).
    ///
    /// Microsoft's own libraries talk to no authority without it, and a SAS for HTTPS alone is refused without it.
    #[arg(long)]
    tls: bool,

    /// A storage account with key1 and key2, and its containers. May be repeated.
    #[arg(long, value_name = "NAME[:CONTAINER…]", value_parser = storage_account, help_heading = "What it starts with")]
    account: Vec<(String, Vec<String>)>,
    /// A Cosmos DB account with its four keys. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = word, help_heading = "What it starts with")]
    cosmos: Vec<String>,
    /// An authorization rule of a Service Bus namespace with its two keys. May be repeated.
    #[arg(long, value_name = "NAMESPACE:RULE", value_parser = rule, help_heading = "What it starts with")]
    service_bus: Vec<(String, String)>,
    /// An application with one password, owned by the rotator. May be repeated.
    ///
    /// Where none of these four is named, there are: storage account gisstore with the container tiles, and application arcgis.
    #[arg(long, value_name = "NAME", value_parser = application, help_heading = "What it starts with")]
    application: Vec<String>,
    /// The directory's id; every other tenant is unknown.
    #[arg(long, value_name = "ID", value_parser = word, help_heading = "What it starts with")]
    tenant_id: Option<String>,
    /// The subscription's id; every other one is unknown.
    #[arg(long, value_name = "ID", value_parser = word, help_heading = "What it starts with")]
    subscription_id: Option<String>,
    /// The only resource group.
    #[arg(long, value_name = "NAME", value_parser = word, default_value = "gis", help_heading = "What it starts with")]
    resource_group: String,

    /// How long an added password is unknown to the token endpoint, in milliseconds.
    #[arg(long = "propagation-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Passwords")]
    propagation: Duration,
    /// How long after that every second login with it is still refused, in milliseconds.
    #[arg(long = "settling-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Passwords")]
    settling: Duration,
    /// How long a removed password still logs in, in milliseconds.
    #[arg(long = "removal-lag-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Passwords")]
    removal_lag: Duration,
    /// How long Graph does not show a fresh password, and still shows a removed one, in milliseconds.
    #[arg(long = "listing-lag-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Passwords")]
    listing_lag: Duration,
    /// How soon after another a change of the directory is refused with 409, in milliseconds.
    #[arg(long = "directory-pause-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Passwords")]
    directory_pause: Duration,
    /// The tenant lets no password last longer than so many days.
    #[arg(long, value_name = "DAYS", conflicts_with = "no_passwords", help_heading = "Passwords")]
    password_days_max: Option<u32>,
    /// The tenant lets nobody add passwords.
    #[arg(long, help_heading = "Passwords")]
    no_passwords: bool,
    /// How long a token is good, in milliseconds; clients are told whole seconds.
    #[arg(long = "token-lifetime-ms", value_name = "MS", value_parser = millis, default_value = "3599000", help_heading = "Passwords")]
    token_lifetime: Duration,

    /// How long the Blob service takes the old key of a regenerated slot, and not the new one, in milliseconds.
    #[arg(long = "key-lag-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Keys")]
    key_lag: Duration,
    /// How long Cosmos DB works on a regeneration, in milliseconds.
    #[arg(long = "cosmos-work-ms", value_name = "MS", value_parser = millis, default_value = "0", help_heading = "Keys")]
    cosmos_work: Duration,
    /// Cosmos DB is done before it answers, with 200; otherwise it answers 202 and goes on.
    #[arg(long, conflicts_with = "cosmos_work", help_heading = "Keys")]
    cosmos_at_once: bool,
    /// Resource Manager takes 200 writes at once and then ten a second, as documented; listing keys is one.
    #[arg(long, help_heading = "Keys")]
    limit_writes: bool,
}

/// What an Azure starts with.
#[derive(Clone, Debug, Default)]
pub(crate) struct AzureHolds {
    /// Storage accounts and their containers.
    pub(crate) accounts: Vec<(String, Vec<String>)>,
    pub(crate) cosmos: Vec<String>,
    /// Namespaces of Service Bus and their rules.
    pub(crate) rules: Vec<(String, String)>,
    pub(crate) applications: Vec<String>,
}

impl AzureArguments {
    pub(crate) fn ports(&self) -> AzurePorts {
        AzurePorts {
            entra: self.entra_port,
            arm: self.arm_port,
            graph: self.graph_port,
            blob: self.blob_port,
            ..AzurePorts::default()
        }
    }

    pub(crate) fn options(&self) -> AzureOptions {
        let plain = AzureOptions::default();
        let days = |days: u32| PasswordPolicy::Lifetime(Duration::from_secs(u64::from(days) * 24 * 3600));
        AzureOptions {
            tenant_id: self.tenant_id.clone().unwrap_or(plain.tenant_id),
            subscription_id: self.subscription_id.clone().unwrap_or(plain.subscription_id),
            resource_group: self.resource_group.clone(),
            tls: self.tls,
            propagation: self.propagation,
            settling: self.settling,
            removal_lag: self.removal_lag,
            listing_lag: self.listing_lag,
            directory_pause: self.directory_pause,
            password_policy: match self.no_passwords {
                true => PasswordPolicy::Forbidden,
                false => self.password_days_max.map_or(PasswordPolicy::Any, days),
            },
            token_lifetime: self.token_lifetime,
            key_lag: self.key_lag,
            cosmos_work: (!self.cosmos_at_once).then_some(self.cosmos_work),
            write_limit: self.limit_writes.then_some(WriteLimit::DOCUMENTED),
            ..plain
        }
    }

    /// What was named, or one of each that ArcGIS uses.
    pub(crate) fn holds(&self) -> AzureHolds {
        let (accounts, cosmos) = (self.account.clone(), self.cosmos.clone());
        let (rules, applications) = (self.service_bus.clone(), self.application.clone());
        if accounts.is_empty() && cosmos.is_empty() && rules.is_empty() && applications.is_empty() {
            let accounts = vec![("gisstore".to_owned(), vec!["tiles".to_owned()])];
            return AzureHolds { accounts, applications: vec!["arcgis".to_owned()], ..AzureHolds::default() };
        }
        AzureHolds { accounts, cosmos, rules, applications }
    }

    fn mistake(&self) -> Option<String> {
        let rules = self.service_bus.iter().map(|(namespace, rule)| format!("{namespace}/{rule}"));
        let accounts =
            self.account.iter().map(|(name, _)| name.clone()).chain(self.cosmos.iter().cloned()).chain(rules);
        let mut seen = BTreeSet::new();
        let twice = accounts.into_iter().find(|name| !seen.insert(name.clone()));
        let mut seen = BTreeSet::new();
        let twice = twice.or_else(|| self.application.iter().find(|name| !seen.insert(*name)).cloned());
        twice.map(|name| format!("{name} names two things"))
    }
}

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProductWord {
    /// ArcGIS Enterprise on Kubernetes: tokens from the portal, jobs at jobs/ID, {"error":…}, {crypt}.
    Kubernetes,
    /// ArcGIS Server: tokens from the admin directory, jobs at system/jobs/ID too, {"status":"error"}, v2Crypt_.
    Server,
}

impl ProductWord {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Server => "server",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum JobPathWord {
    /// At both.
    Both,
    /// At system/jobs only.
    Classic,
    /// At jobs only.
    Short,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SpellingWord {
    /// access_key, secret_key: as the documents of the requests have it.
    Snake,
    /// accessKey, secretKey: as the answers have it.
    Camel,
    /// Either.
    Both,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ItemViewWord {
    /// JSON in a text, enciphered as a whole; in clear for decrypt=true over HTTPS.
    Sealed,
    /// An object whose key id and secret are enciphered each for itself.
    SealedFields,
    /// An object in clear.
    Object,
    /// JSON in a text, in clear.
    Text,
}

#[derive(Clone, Debug)]
pub(crate) struct ProviderWords {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) user: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ServiceWords {
    pub(crate) id: String,
    pub(crate) provider: String,
    pub(crate) bucket: String,
    pub(crate) user: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct ItemWords {
    pub(crate) name: String,
    /// `bucket` or `bucket/folder`
    pub(crate) bucket: String,
    pub(crate) user: String,
}

#[derive(Clone, Debug)]
pub(crate) struct StoreWords {
    pub(crate) name: String,
    pub(crate) service: String,
}

/// What it starts with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds {
    pub(crate) providers: Vec<ProviderWords>,
    pub(crate) services: Vec<ServiceWords>,
    pub(crate) items: Vec<ItemWords>,
    pub(crate) stores: Vec<StoreWords>,
}

impl Holds {
    fn is_empty(&self) -> bool {
        self.providers.is_empty() && self.services.is_empty() && self.items.is_empty() && self.stores.is_empty()
    }

    /// Whose keys there are.
    pub(crate) fn users(&self) -> Vec<String> {
        let providers = self.providers.iter().filter_map(|provider| provider.user.clone());
        let services = self.services.iter().filter_map(|service| service.user.clone());
        providers.chain(services).chain(self.items.iter().map(|item| item.user.clone())).collect()
    }

    pub(crate) fn buckets(&self) -> impl Iterator<Item = &str> {
        let items = self.items.iter().filter_map(|item| item.bucket.split('/').next());
        self.services.iter().map(|service| service.bucket.as_str()).chain(items)
    }

    /// What contradicts itself.
    fn mistake(&self) -> Option<String> {
        let ids = self.providers.iter().map(|provider| &provider.id);
        let ids = ids.chain(self.services.iter().map(|service| &service.id)).chain(self.items.iter().map(|i| &i.name));
        let mut seen = BTreeSet::new();
        if let Some(twice) = ids.into_iter().find(|id| !seen.insert(*id)) {
            return Some(format!("{twice} names two things"));
        }
        let unknown = |id: &String| !self.providers.iter().any(|provider| provider.id == *id);
        if let Some(service) = self.services.iter().find(|service| unknown(&service.provider)) {
            return Some(format!("--service {}: there is no --provider {}", service.id, service.provider));
        }
        let unknown = |id: &String| !self.services.iter().any(|service| service.id == *id);
        let store = self.stores.iter().find(|store| unknown(&store.service))?;
        Some(format!("--backup-store {}: there is no --service {}", store.name, store.service))
    }
}

impl Arguments {
    /// The same, where nothing in them contradicts anything else; otherwise the program ends with 2 and a sentence.
    pub(crate) fn checked(self) -> Self {
        let found = match &self.one {
            Some(One::ArcGis(one)) => one.mistake().map(|mistake| ("arcgis", mistake)),
            Some(One::Azure(one)) => one.mistake().map(|mistake| ("azure", mistake)),
            None => None,
        };
        if let Some((name, mistake)) = found {
            let mut command = Self::command();
            command.build();
            let form = command.find_subcommand_mut(name).expect("these words are the ones after its name");
            form.error(ErrorKind::ArgumentConflict, mistake).exit();
        }
        self
    }

    pub(crate) fn form(self) -> Form {
        match self.one {
            Some(One::ArcGis(one)) => Form::ArcGis(one),
            Some(One::Azure(one)) => Form::Azure(one),
            None => Form::Pair(self.pair),
        }
    }
}

impl ArcGisArguments {
    /// All but the password.
    pub(crate) fn options(&self) -> ArcGisOptions {
        let self_signed =
            self.self_signed.clone().map(|name| SelfSigned { name, is_authority: self.self_signed_authority });
        ArcGisOptions {
            product: match self.product {
                ProductWord::Kubernetes => Product::Kubernetes,
                ProductWord::Server => Product::Server,
            },
            version: self.version.clone(),
            context: self.context.clone(),
            username: self.username.clone(),
            token_minutes_max: self.token_minutes_max,
            token_ttl: self.token_ttl,
            job_duration: self.job,
            tls: self.tls,
            self_signed,
            demands_certificate: self.demand_certificate,
            federated: self.federated,
            real_status_codes: self.real_status_codes,
            malformed_job_reply: self.malformed_job_reply,
            accept_clouds_alias: self.accept_clouds_alias,
            spelling: match self.spelling {
                SpellingWord::Snake => Spelling::Snake,
                SpellingWord::Camel => Spelling::Camel,
                SpellingWord::Both => Spelling::Both,
            },
            server_job_path: match self.job_path {
                JobPathWord::Both => JobPath::Both,
                JobPathWord::Classic => JobPath::Classic,
                JobPathWord::Short => JobPath::Short,
            },
            concurrent_jobs: !self.one_job_at_a_time,
            server_provider_update: !self.no_provider_update,
            lockout: self.lockout,
            item_view: match self.item_view {
                ItemViewWord::Sealed => ItemView::Sealed,
                ItemViewWord::SealedFields => ItemView::SealedFields,
                ItemViewWord::Object => ItemView::Object,
                ItemViewWord::Text => ItemView::Text,
            },
            validates_items: !self.no_validate_items,
            password: String::new(),
        }
    }

    /// What was named, or a little of everything.
    pub(crate) fn holds(&self) -> Holds {
        let named = Holds {
            providers: self.provider.clone(),
            services: self.service.clone(),
            items: self.data_item.clone(),
            stores: self.backup_store.clone(),
        };
        if named.is_empty() { self.everything() } else { named }
    }

    fn everything(&self) -> Holds {
        let read = "the built-in words are well formed";
        let items = vec![data_item("imagery:gis-store:arcgis-main").expect(read)];
        if !self.has_cloud() {
            return Holds { items, ..Holds::default() };
        }
        let stores = match self.product {
            ProductWord::Kubernetes => vec![backup_store("nightly:uqsip6c2vm").expect(read)],
            ProductWord::Server => Vec::new(),
        };
        Holds {
            providers: vec![provider("s7my5d949q:AWS:arcgis-main").expect(read)],
            services: vec![
                service("wpjkp9s7ub:s7my5d949q:gis-store").expect(read),
                service("uqsip6c2vm:s7my5d949q:gis-backups:arcgis-backup").expect(read),
            ],
            items,
            stores,
        }
    }

    fn has_cloud(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version >= if self.product == ProductWord::Server { (12, 0) } else { (11, 2) }
    }

    fn mistake(&self) -> Option<String> {
        let on_server = self.product == ProductWord::Server;
        let of_server = [
            (self.federated, "--federated: Kubernetes always has a portal; this is for --product server"),
            (
                self.job_path != JobPathWord::Both,
                "--job-path: Kubernetes shows its jobs at jobs/ID; this is for --product server",
            ),
            (
                self.no_provider_update,
                "--no-provider-update: Kubernetes documents that operation; this is for --product server",
            ),
        ];
        if let Some((_, why)) = of_server.into_iter().find(|(given, _)| *given && !on_server) {
            return Some(why.to_owned());
        }
        if on_server && !self.backup_store.is_empty() {
            return Some("--backup-store: only Kubernetes validates its backup stores".to_owned());
        }
        let names_cloud = !self.provider.is_empty() || !self.service.is_empty();
        if names_cloud && !self.has_cloud() {
            let (product, version) = (self.product.word(), &self.version);
            return Some(format!(
                "{product} {version} has no cloud providers and services: they came to kubernetes with 11.2, to server with 12.0"
            ));
        }
        self.holds().mistake()
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| "this is no number of milliseconds".to_owned())
}

fn version(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u16>().is_ok() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(text.to_owned()),
        _ => Err("a version has two numbers, such as 11.5 or 12.0".to_owned()),
    }
}

fn context(text: &str) -> Result<String, String> {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let path = text.trim_matches('/');
    if path.split('/').all(is_part) {
        Ok(path.to_owned())
    } else {
        Err("this is no path of letters, digits, - _ . and /".to_owned())
    }
}

fn provider(text: &str) -> Result<ProviderWords, String> {
    let form = "ID:NAME or ID:NAME:USER";
    let (id, name, user) = match text.split(':').collect::<Vec<_>>()[..] {
        [id, name] => (id, name, None),
        [id, name, user] => (id, name, Some(user)),
        _ => return Err(format!("it is written {form}")),
    };
    if !["AWS", "AZURE", "GCP"].contains(&name) {
        return Err("a provider is called AWS, AZURE or GCP".to_owned());
    }
    Ok(ProviderWords { id: word(id)?, name: name.to_owned(), user: user.map(user_name).transpose()? })
}

fn service(text: &str) -> Result<ServiceWords, String> {
    let (id, provider, bucket, user) = match text.split(':').collect::<Vec<_>>()[..] {
        [id, provider, bucket] => (id, provider, bucket, None),
        [id, provider, bucket, user] => (id, provider, bucket, Some(user)),
        _ => return Err("it is written ID:PROVIDER:BUCKET or ID:PROVIDER:BUCKET:USER".to_owned()),
    };
    let user = user.map(user_name).transpose()?;
    Ok(ServiceWords { id: word(id)?, provider: word(provider)?, bucket: word(bucket)?, user })
}

fn data_item(text: &str) -> Result<ItemWords, String> {
    let [name, bucket, user] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err("it is written NAME:BUCKET:USER".to_owned());
    };
    bucket.split('/').try_for_each(|part| word(part).map(drop))?;
    Ok(ItemWords { name: word(name)?, bucket: bucket.to_owned(), user: user_name(user)? })
}

fn backup_store(text: &str) -> Result<StoreWords, String> {
    let [name, service] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err("it is written NAME:SERVICE".to_owned());
    };
    Ok(StoreWords { name: word(name)?, service: word(service)? })
}

fn storage_account(text: &str) -> Result<(String, Vec<String>), String> {
    let mut pieces = text.split(':');
    let name = pieces.next().unwrap_or_default();
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !is_plain || !(3..=24).contains(&name.len()) {
        return Err("a storage account is called by 3 to 24 small letters and digits".to_owned());
    }
    let containers: Vec<String> = pieces.map(str::to_owned).collect();
    match containers.iter().find(|container| !Azure::is_container_name(container)) {
        Some(container) => {
            Err(format!("`{container}`: a container is called by 3 to 63 small letters, digits and single hyphens"))
        }
        None => Ok((name.to_owned(), containers)),
    }
}

fn rule(text: &str) -> Result<(String, String), String> {
    let (namespace, rule) = text.split_once(':').ok_or("it is written NAMESPACE:RULE")?;
    Ok((word(namespace)?, word(rule)?))
}

fn application(text: &str) -> Result<String, String> {
    // Its secret would stand in the place of the other one's.
    if ["rotator", "azure"].contains(&text) {
        return Err(format!("{text} is taken; call the application something else"));
    }
    word(text)
}

/// Something that stands in a URL as it is.
fn word(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_plain { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a word of letters, digits, - _ and .")) }
}

fn user_name(text: &str) -> Result<String, String> {
    if text == "rotator" {
        return Err("rotator is the administrator of the AWS; call the user something else".to_owned());
    }
    word(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(words: &str) -> Result<ArcGisArguments, String> {
        let words = ["rekeyd-lab", "arcgis", "--dir", "d"].into_iter().chain(words.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|why| why.to_string())?;
        let Form::ArcGis(one) = arguments.form() else { return Err("this is the other form".to_owned()) };
        match one.mistake() {
            Some(mistake) => Err(mistake),
            None => Ok(*one),
        }
    }

    fn azure(words: &str) -> Result<AzureArguments, String> {
        let words = ["rekeyd-lab", "azure", "--dir", "d"].into_iter().chain(words.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|why| why.to_string())?;
        let Form::Azure(one) = arguments.form() else { return Err("this is another form".to_owned()) };
        match one.mistake() {
            Some(mistake) => Err(mistake),
            None => Ok(*one),
        }
    }

    #[test]
    fn every_switch_of_an_azure_is_an_argument() {
        let words = "--tenant-id t --subscription-id s --resource-group g --tls --propagation-ms 1 --settling-ms 2 --removal-lag-ms 3 \
                     --listing-lag-ms 4 --directory-pause-ms 5 --password-days-max 6 --token-lifetime-ms 7 --key-lag-ms 8 --cosmos-work-ms 9 \
                     --limit-writes --entra-port 10 --arm-port 11 --graph-port 12 --blob-port 13";
        let one = azure(words).expect("this is in order");
        assert_eq!(one.ports(), AzurePorts { entra: 10, arm: 11, graph: 12, blob: 13, cosmos: 0, service_bus: 0 });
        // Destructured, so that an option of tomorrow is missed here.
        let AzureOptions {
            tenant_id,
            subscription_id,
            resource_group,
            tls,
            propagation,
            settling,
            removal_lag,
            listing_lag,
            directory_pause,
            password_policy,
            token_lifetime,
            key_lag,
            cosmos_work,
            write_limit,
            page_size: _,
        } = one.options();
        assert_eq!([tenant_id, subscription_id, resource_group], ["t", "s", "g"]);
        let times = [propagation, settling, removal_lag, listing_lag, directory_pause, token_lifetime, key_lag];
        assert_eq!(times.map(|time| time.as_millis()), [1, 2, 3, 4, 5, 7, 8]);
        assert_eq!(password_policy, PasswordPolicy::Lifetime(Duration::from_secs(6 * 24 * 3600)));
        assert!(tls && cosmos_work == Some(Duration::from_millis(9)) && write_limit == Some(WriteLimit::DOCUMENTED));
        let other = azure("--no-passwords --cosmos-at-once").expect("this is in order").options();
        assert_eq!((other.password_policy, other.cosmos_work), (PasswordPolicy::Forbidden, None));
        let plain = azure("").expect("this is in order").options();
        assert_eq!(format!("{plain:?}"), format!("{:?}", AzureOptions::default()));
    }

    #[test]
    fn an_azure_starts_with_what_was_named_or_with_one_of_each() {
        let holds = |words: &str| {
            let AzureHolds { accounts, cosmos, rules, applications } = azure(words).expect("this is in order").holds();
            format!("{accounts:?} {cosmos:?} {rules:?} {applications:?}")
        };
        assert_eq!(holds(""), r#"[("gisstore", ["tiles"])] [] [] ["arcgis"]"#);
        let words = "--account one:a-1:bbb --account two --cosmos db --service-bus q:manage --application gis";
        assert_eq!(holds(words), r#"[("one", ["a-1", "bbb"]), ("two", [])] ["db"] [("q", "manage")] ["gis"]"#);
        for (words, why) in [
            ("--account Gis", "3 to 24 small letters and digits"),
            ("--account gis:Tiles", "`Tiles`: a container is called by"),
            ("--account gis --account gis", "gis names two things"),
            ("--account gis --cosmos gis", "gis names two things"),
            ("--application a --application a", "a names two things"),
            ("--application rotator", "rotator is taken"),
            ("--service-bus q", "it is written NAMESPACE:RULE"),
            ("--no-passwords --password-days-max 3", "cannot be used with"),
            ("--cosmos-at-once --cosmos-work-ms 3", "cannot be used with"),
        ] {
            let said = azure(words).expect_err("this makes no sense");
            assert!(said.contains(why), "{words}: {why} is not in:\n{said}");
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_switch_of_a_site_is_an_argument() {
        let site = "--product server --version 12.1 --context gis/server --username Anna --federated --real-status-codes \
                    --malformed-job-reply --accept-clouds-alias --spelling both --job-path classic --one-job-at-a-time \
                    --no-provider-update --lockout-ms 7 --item-view text --no-validate-items --tls --self-signed gis.example.com \
                    --self-signed-authority --demand-certificate --job-ms 8 --token-minutes-max 9 --token-ttl-ms 10";
        let options = one(site).expect("this is in order").options();
        // Destructured, so that an option of tomorrow is missed here.
        let ArcGisOptions {
            product,
            version,
            context,
            username,
            password,
            token_minutes_max,
            token_ttl,
            job_duration,
            tls,
            self_signed,
            demands_certificate,
            federated,
            real_status_codes,
            malformed_job_reply,
            accept_clouds_alias,
            spelling,
            server_job_path,
            concurrent_jobs,
            server_provider_update,
            lockout,
            item_view,
            validates_items,
        } = options;
        assert_eq!((product, version.as_str(), context.as_str()), (Product::Server, "12.1", "gis/server"));
        assert_eq!((username.as_str(), password.as_str()), ("Anna", ""), "the password is no argument");
        let times = [token_ttl.expect("it is given"), job_duration, lockout].map(|time| time.as_millis());
        assert_eq!((token_minutes_max, times), (9, [10, 8, 7]));
        assert_eq!(self_signed, Some(SelfSigned { name: "gis.example.com".to_owned(), is_authority: true }));
        assert!(
            tls && demands_certificate && federated && real_status_codes && malformed_job_reply && accept_clouds_alias
        );
        assert!(!concurrent_jobs && !server_provider_update && !validates_items);
        assert_eq!((spelling, server_job_path, item_view), (Spelling::Both, JobPath::Classic, ItemView::Text));
    }

    #[test]
    fn what_is_not_said_is_as_the_library_has_it() {
        let options = one("--product kubernetes").expect("this is in order").options();
        let plain = ArcGisOptions { password: String::new(), job_duration: options.job_duration, ..Default::default() };
        assert_eq!(format!("{options:?}"), format!("{plain:?}"));
    }

    #[test]
    fn what_it_starts_with_follows_the_words_or_the_version() {
        let count = |words: &str| {
            let holds = one(words).expect("this is in order").holds();
            [holds.providers.len(), holds.services.len(), holds.items.len(), holds.stores.len()]
        };
        assert_eq!(count("--product kubernetes"), [1, 2, 1, 1]);
        assert_eq!(count("--product server"), [1, 2, 1, 0]);
        assert_eq!(count("--product server --version 11.5"), [0, 0, 1, 0]);
        assert_eq!(count("--product kubernetes --version 11.2 --provider p:AWS --service s:p:b:u"), [1, 1, 0, 0]);
    }

    #[test]
    fn what_contradicts_itself_is_told_in_a_sentence() {
        for (words, why) in [
            ("", "--product <PRODUCT>"),
            ("--product desktop", "[possible values: kubernetes, server]"),
            ("--product server --version twelve", "a version has two numbers, such as 11.5 or 12.0"),
            ("--product server --version 12.x", "a version has two numbers"),
            ("--product server --context a//b", "this is no path"),
            ("--product server --port 70000", "70000 is not in 0..=65535"),
            ("--product server --job-ms soon", "this is no number of milliseconds"),
            ("--product server --self-signed x", "--tls"),
            ("--product server --tls --self-signed-authority", "--self-signed <NAME>"),
            ("--product server --demand-certificate", "--tls"),
            ("--product kubernetes --federated", "Kubernetes always has a portal"),
            ("--product kubernetes --job-path short", "jobs at jobs/ID"),
            ("--product kubernetes --no-provider-update", "Kubernetes documents that operation"),
            ("--product server --backup-store a:b", "only Kubernetes validates its backup stores"),
            ("--product server --version 11.5 --provider p:AWS", "server 11.5 has no cloud providers"),
            ("--product server --provider p:Amazon", "AWS, AZURE or GCP"),
            ("--product server --provider p", "it is written ID:NAME"),
            ("--product server --provider p:AWS:rotator", "rotator is the administrator"),
            ("--product server --provider p:AWS --service s:q:b", "--service s: there is no --provider q"),
            ("--product server --provider p:AWS --service p:p:b", "p names two things"),
            ("--product server --service s:p", "it is written ID:PROVIDER:BUCKET"),
            ("--product server --data-item a/b:c:d", "`a/b` is not a word"),
            ("--product server --data-item a:b", "it is written NAME:BUCKET:USER"),
            ("--product kubernetes --backup-store n:s", "--backup-store n: there is no --service s"),
        ] {
            let said = one(words).expect_err("this makes no sense");
            assert!(said.contains(why), "{words}: {why} is not in:\n{said}");
        }
    }
}

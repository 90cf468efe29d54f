//! `rekeyd-lab --dir DIR`: an AWS, an Azure and one ArcGIS of each product, every one with a service on each of the two clouds that has
//! a key of its own.

use rekeyd_lab::{
    ArcGis, ArcGisOptions, Aws, AwsOptions, AzureOptions, AzurePorts, Product, ServiceSpec, StoredCredential,
};
use serde_json::json;

use super::arguments::{AzureHolds, Pair};
use super::azure::Tenant;
use super::{Holder, Kind, Lab, NODES, Place, Site, keep, keep_admin, role_of_nodes};

pub(super) async fn start(arguments: &Pair) -> std::io::Result<Lab> {
    let dir = arguments.dir();
    std::fs::create_dir_all(&dir)?;
    let aws = Aws::start(AwsOptions {
        propagation: arguments.propagation,
        listing_lag: arguments.listing_lag,
        ..AwsOptions::default()
    })
    .await;
    keep_admin(&dir, &aws)?;
    let role = role_of_nodes(&aws);
    let names = ["kubernetes", "server"];
    let accounts = names.map(|name| (account_of(name), vec![store_of(name)])).to_vec();
    let holds = AzureHolds { accounts, applications: vec!["arcgis".to_owned()], ..AzureHolds::default() };
    let options = AzureOptions { key_lag: arguments.propagation, ..AzureOptions::default() };
    let tenant = Tenant::start(AzurePorts::default(), options, &holds, &dir).await?;
    let kubernetes = (names[0], Product::Kubernetes, ["betc4g098c", "eg7hrelq6b"], ["n3vq81ktzp", "hx20cpw7me"]);
    let server = (names[1], Product::Server, ["s7my5d949q", "wpjkp9s7ub"], ["b9dy4rk6qa", "t5juo38wgl"]);
    let mut sites = Vec::new();
    for (name, product, [provider, service], on_azure) in [kubernetes, server] {
        let (user, bucket) = (format!("arcgis-{name}"), store_of(name));
        aws.add_user(&user);
        aws.add_bucket(&bucket, &[&user, NODES]);
        let (access_key, secret_key) = aws.create_key(&user);
        let password = format!("{secret_key}&=%+{name}");
        let options = ArcGisOptions {
            product,
            password: password.clone(),
            job_duration: arguments.job,
            tls: arguments.tls,
            ..ArcGisOptions::default()
        };
        let (version, username) = (options.version.clone(), options.username.clone());
        let arcgis = ArcGis::start(options, &aws).await;
        arcgis.set_node_role(&role.0, &role.1);
        arcgis.add_provider(provider, "AWS", None);
        arcgis.add_service(service, provider, &bucket, Some(StoredCredential { access_key, secret_key }));
        keep(&dir, &format!("{name}-password"), &password)?;
        if let Some(pem) = arcgis.ca_pem() {
            keep(&dir, &format!("{name}-ca.pem"), &pem)?;
        }
        let (id, of) = (provider.to_owned(), "AWS".to_owned());
        let provider = Place { kind: Kind::Provider, id, of, bucket: String::new(), holder: None };
        let (id, of) = (service.to_owned(), provider.id.clone());
        let service = Place { kind: Kind::Service, id, of, bucket, holder: Some(Holder::User(user)) };
        let places = [provider, service].into_iter().chain(fill_azure(&arcgis, &tenant, name, on_azure)).collect();
        sites.push(Site { name, version, username, arcgis, places });
    }
    Ok(Lab { aws: Some(aws), azure: Some(tenant), sites, dir, control_port: 0 })
}

/// A bucket is called so, and a container too.
fn store_of(site: &str) -> String {
    format!("gis-{site}-store")
}

fn account_of(site: &str) -> String {
    format!("gis{site}")
}

/// A provider, and a service that holds the first key of the site's storage account.
fn fill_azure(arcgis: &ArcGis, tenant: &Tenant, site: &str, [provider, service]: [&str; 2]) -> [Place; 2] {
    let (account, container, slot) = (account_of(site), store_of(site), "key1");
    arcgis.use_azure(&tenant.azure);
    arcgis.add_provider(provider, "AZURE", None);
    let mut spec = ServiceSpec::azure_blob_store(service, provider, &container);
    let endpoint = format!("https://{account}.blob.core.windows.net");
    spec.connection.insert("accountEndpointUrl".to_owned(), json!(endpoint));
    arcgis.add_service_with(spec);
    let secret = json!({"storageAccountName": account, "storageAccountKey": tenant.key(&account, slot)});
    arcgis.set_credential_object(service, &json!({"type": "STORAGE-ACCOUNT-KEY", "secret": secret}));
    let (id, of) = (provider.to_owned(), "AZURE".to_owned());
    let provider = Place { kind: Kind::Provider, id, of, bucket: String::new(), holder: None };
    let (id, of, holder) = (service.to_owned(), provider.id.clone(), Some(Holder::Account(account, slot)));
    let service = Place { kind: Kind::Service, id, of, bucket: container, holder };
    [provider, service]
}

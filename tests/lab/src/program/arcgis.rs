//! `rekeyd-lab arcgis`: one ArcGIS of one's choice, and the AWS whose keys it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, ServiceSpec, StoredCredential};

use super::arguments::{ArcGisArguments, Holds};
use super::{Holder, Kind, Lab, NODES, Place, Site, keep, keep_admin, role_of_nodes};

pub(super) async fn start(arguments: &ArcGisArguments) -> std::io::Result<Lab> {
    let dir = arguments.dir.clone();
    std::fs::create_dir_all(&dir)?;
    let aws = Aws::start(AwsOptions { propagation: arguments.propagation, ..AwsOptions::default() }).await;
    let password = match &arguments.password_file {
        Some(file) => password_of(file)?,
        // Nobody can guess it, and a client that forgets to escape its form is told so at its first login.
        None => format!("{}&=%+lab", uuid::Uuid::new_v4()),
    };
    let options = ArcGisOptions { password: password.clone(), ..arguments.options() };
    let site = options.clone();
    let arcgis = ArcGis::start_on(arguments.port, options, &aws)
        .await
        .map_err(|why| std::io::Error::new(why.kind(), format!("listening on 127.0.0.1:{}: {why}", arguments.port)))?;
    keep_admin(&dir, &aws)?;
    keep(&dir, "password", &password)?;
    if let Some(pem) = arcgis.ca_pem() {
        keep(&dir, "ca.pem", &pem)?;
    }
    if let Some((certificate, key)) = arcgis.client_identity().filter(|_| arguments.demand_certificate) {
        keep(&dir, "client.pem", &certificate)?;
        keep(&dir, "client-key.pem", &key)?;
    }
    let places = fill(&arcgis, &aws, &arguments.holds());
    let name = arguments.product.word();
    let site = Site { name, version: site.version, username: site.username, arcgis, places };
    Ok(Lab { aws: Some(aws), azure: None, sites: vec![site], dir, control_port: arguments.control_port })
}

/// Without the newline that an editor leaves.
fn password_of(file: &Path) -> std::io::Result<String> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|why| std::io::Error::new(why.kind(), format!("reading {}: {why}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Every user reads every bucket: which key a place holds is the question here, and not what the key may.
fn fill(arcgis: &ArcGis, aws: &Aws, holds: &Holds) -> Vec<Place> {
    let users = holds.users();
    let users: BTreeSet<&str> = users.iter().map(String::as_str).collect();
    let mut keys = BTreeMap::new();
    for user in &users {
        aws.add_user(user);
        let (access_key, secret_key) = aws.create_key(user);
        keys.insert((*user).to_owned(), StoredCredential { access_key, secret_key });
    }
    let role = role_of_nodes(aws);
    arcgis.set_node_role(&role.0, &role.1);
    let readers: Vec<&str> = users.iter().copied().chain([NODES]).collect();
    for bucket in holds.buckets() {
        aws.add_bucket(bucket, &readers);
    }
    let key_of = |user: &Option<String>| user.as_ref().and_then(|user| keys.get(user)).cloned();
    let holder = |user: &Option<String>| user.clone().map(Holder::User);
    let mut places = Vec::new();
    for provider in &holds.providers {
        arcgis.add_provider(&provider.id, &provider.name, key_of(&provider.user));
        let (kind, id, of) = (Kind::Provider, provider.id.clone(), provider.name.clone());
        places.push(Place { kind, id, of, bucket: String::new(), holder: holder(&provider.user) });
    }
    for service in &holds.services {
        let usage = if holds.stores.iter().any(|store| store.service == service.id) { "BACKUP" } else { "DEFAULT" };
        arcgis.add_service_with(ServiceSpec {
            usage: Some(usage.to_owned()),
            credential: key_of(&service.user),
            ..ServiceSpec::new(&service.id, &service.provider, &service.bucket)
        });
        let (kind, id, of) = (Kind::Service, service.id.clone(), service.provider.clone());
        places.push(Place { kind, id, of, bucket: service.bucket.clone(), holder: holder(&service.user) });
    }
    for item in &holds.items {
        let (path, user) = (format!("/cloudStores/{}", item.name), Some(item.user.clone()));
        let key = key_of(&user).expect("a key was made for every user that was named");
        arcgis.add_data_item(&path, &item.bucket, key);
        let (of, bucket) = (String::new(), item.bucket.clone());
        places.push(Place { kind: Kind::Item, id: path, of, bucket, holder: holder(&user) });
    }
    for store in &holds.stores {
        arcgis.add_backup_store(&store.name, &store.service);
    }
    places
}

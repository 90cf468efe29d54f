//! `rekeyd-lab --dir DIR`: an AWS and one ArcGIS of each product, every one with a service that has a key of its own.

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Product, StoredCredential};

use super::arguments::Pair;
use super::{Kind, Lab, NODES, Place, Site, keep, keep_admin, role_of_nodes};

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
    let kubernetes = ("kubernetes", Product::Kubernetes, "betc4g098c", "eg7hrelq6b");
    let server = ("server", Product::Server, "s7my5d949q", "wpjkp9s7ub");
    let mut sites = Vec::new();
    for (name, product, provider, service) in [kubernetes, server] {
        let (user, bucket) = (format!("arcgis-{name}"), format!("gis-{name}-store"));
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
        let provider = Place { kind: Kind::Provider, id, of, bucket: String::new(), user: None };
        let (id, of) = (service.to_owned(), provider.id.clone());
        let service = Place { kind: Kind::Service, id, of, bucket, user: Some(user) };
        sites.push(Site { name, version, username, arcgis, places: vec![provider, service] });
    }
    Ok(Lab { aws, sites, dir, control_port: 0 })
}

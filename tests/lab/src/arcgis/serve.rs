//! One request from the wire to the answer: where it goes, what fault awaits it, whether it may, what it does.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::cloud::{self, Place};
use super::options::{JobPath, Product, Restart};
use super::reply::{Format, Outcome, respond};
use super::site::{Site, lock};
use super::{data, jobs, tokens};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request, html_page};
use crate::{Fault, RequestLine, form, http};

pub(crate) struct Server {
    site: Arc<Mutex<Site>>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    /// Of the portal.
    Token,
    /// Of Server's admin directory.
    ServerToken,
    /// `rest/info` and `sharing/rest/info`: says where tokens come from; needs none.
    Info,
    /// `community/self` of the portal: who asks.
    Myself,
    Root,
    Mode,
    /// Server only: how its upgrade stands.
    Upgrade,
    Cloud(Place),
    Data(data::Place),
    Jobs,
    Job(String),
    Unknown,
}

impl Route {
    fn parse(site: &Site, path: &str) -> Route {
        let path = form::decode(path, false);
        let Some(rest) = path.trim_start_matches('/').strip_prefix(site.options.context.trim_matches('/')) else {
            return Route::Unknown;
        };
        let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
        let (kubernetes, portal) = (!site.is_server(), site.has_portal());
        match segments[..] {
            ["sharing", "rest", "generateToken"] if portal => Route::Token,
            ["admin", "generateToken"] if !kubernetes => Route::ServerToken,
            ["sharing", "rest", "info"] if portal => Route::Info,
            ["sharing", "rest", "community", "self"] if portal => Route::Myself,
            ["rest", "info"] => Route::Info,
            ["admin", ref admin @ ..] => Self::parse_admin(site, admin),
            _ => Route::Unknown,
        }
    }

    fn parse_admin(site: &Site, segments: &[&str]) -> Route {
        let short = !site.is_server() || site.options.server_job_path != JobPath::Classic;
        let classic = site.is_server() && site.options.server_job_path != JobPath::Short;
        match segments {
            [] => Route::Root,
            ["mode"] => Route::Mode,
            ["upgrade"] if site.is_server() => Route::Upgrade,
            ["jobs"] if short => Route::Jobs,
            ["jobs", id] if short => Route::Job((*id).to_owned()),
            ["system", "jobs"] if classic => Route::Jobs,
            ["system", "jobs", id] if classic => Route::Job((*id).to_owned()),
            ["clouds", ..] if !site.options.accept_clouds_alias => Route::Unknown,
            ["cloud" | "clouds", rest @ ..] if site.has_cloud() => {
                Place::parse(rest).map_or(Route::Unknown, Route::Cloud)
            }
            ["data", "validateDataItem"] if !site.options.validates_items => Route::Unknown,
            other => data::Place::parse(other, site.is_server()).map_or(Route::Unknown, Route::Data),
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Route::Token | Route::ServerToken => "generateToken",
            Route::Info => "info",
            Route::Myself => "self",
            Route::Root => "root",
            Route::Mode => "mode",
            Route::Upgrade => "upgrade",
            Route::Cloud(place) => place.operation(),
            Route::Data(place) => place.operation(),
            Route::Jobs => "jobs",
            Route::Job(_) => "job",
            Route::Unknown => "unknown",
        }
    }

    fn target(&self) -> &str {
        match self {
            Route::Job(id) => id,
            Route::Cloud(
                Place::Provider(id) | Place::Service(id) | Place::Status(id) | Place::Credential { id, .. },
            ) => id,
            Route::Data(place) => place.target(),
            _ => "",
        }
    }

    /// Lists are JSON unless asked otherwise, and JSON only; everything else is a page unless asked otherwise.
    fn format(&self, f: Option<&str>) -> Option<Format> {
        match self {
            Route::Cloud(Place::Providers | Place::Services) => {
                Format::parse(f, Format::Pretty).filter(|format| *format != Format::Html)
            }
            Route::Cloud(Place::Root) => Some(Format::Html),
            _ => Format::parse(f, Format::Html),
        }
    }
}

/// A call, as far as the path tells.
pub(crate) struct Call {
    request: Request,
    route: Route,
    format: Option<Format>,
}

impl Call {
    fn execute(&self, site: &mut Site, shared: &Arc<Mutex<Site>>, now: DateTime<Utc>) -> Outcome {
        if self.format.is_none() {
            return Outcome::error(400, "Output format not supported.");
        }
        match &self.route {
            Route::Token => return tokens::generate(site, &self.request, now, true),
            Route::ServerToken => return tokens::generate(site, &self.request, now, false),
            Route::Info => return Outcome::json(info(site, &self.request)),
            // A portal tells everybody who they are, whatever they may do elsewhere.
            Route::Myself => {
                return match tokens::identify(site, &self.request, now) {
                    Ok(()) => Outcome::json(myself(site)),
                    Err(refused) => refused,
                };
            }
            _ => {}
        }
        if let Err(refused) = tokens::authorize(site, &self.request, now) {
            return refused;
        }
        if site.denied.contains(self.route.operation()) {
            return Outcome::error(403, "Token is valid but access is denied.");
        }
        if self.request.method == Method::POST {
            if site.locked {
                let message =
                    "Another administrative operation is currently accessing the store. Please try again later.";
                return Outcome::error(500, message);
            }
            if site.read_only {
                // The page says that POSTs are blocked; the wording and the code are ours.
                return Outcome::error(500, "The operation is not allowed because the site is in read-only mode.");
            }
        }
        match (&self.route, &self.request.method) {
            (Route::Cloud(place), &Method::POST) => cloud::replace(site, shared, place, &self.request, now),
            (Route::Unknown, _) => Outcome::not_found(&self.request.path),
            (Route::Data(place), _) => data::execute(site, place, &self.request),
            (_, method) if method != Method::GET => Outcome::error(405, "This request needs to be a GET request."),
            (Route::Root, _) => Outcome::json(version(site)),
            (Route::Mode, _) => Outcome::json(mode(site)),
            (Route::Upgrade, _) => match &site.upgrade {
                Some(status) => Outcome::json(json!({ "upgradeStatus": status })),
                None => Outcome::not_found(&self.request.path),
            },
            (Route::Cloud(place), _) => cloud::get(site, place, &self.request),
            (Route::Jobs, _) => Outcome::json(jobs::list(site, now)),
            (Route::Job(id), _) => match jobs::poll(site, id, now) {
                Some(job) => Outcome::json(job),
                None => Outcome::not_found(id),
            },
            (Route::Token | Route::ServerToken | Route::Info | Route::Myself, _) => {
                Outcome::not_found(&self.request.path)
            }
        }
    }
}

impl Server {
    pub(crate) fn new(site: Arc<Mutex<Site>>) -> Self {
        Self { site }
    }

    fn read(&self, request: Request) -> (Call, Option<Fault>, Option<Restart>) {
        let mut site = lock(&self.site);
        let mut url = request.path.clone();
        if !request.query.is_empty() {
            url = format!("{url}?{}", request.query);
        }
        site.urls.push(url);
        site.headers.extend(request.headers.keys().map(|name| name.as_str().to_owned()));
        let route = Route::parse(&site, &request.path);
        let query = form::pairs(&request.query);
        let f = form::value(&request.form(), "f").or(form::value(&query, "f")).map(str::to_owned);
        let format = route.format(f.as_deref());
        let restarting = site.restarting(Utc::now());
        // A site that is not there spends no fault.
        let fault = if restarting.is_some() { None } else { site.faults.take(route.operation()) };
        (Call { request, route, format }, fault, restarting)
    }

    fn restarting(&self, call: &Call, how: Restart) -> Reply {
        let page = |status| {
            self.spare(call, status);
            Reply::Answer(html_page(status, "Unavailable", "The server is starting."))
        };
        match how {
            Restart::Closed => {
                self.spare(call, 0);
                Reply::Close
            }
            Restart::BadGateway => page(502),
            Restart::Unavailable => page(503),
            Restart::NotFound => page(404),
            Restart::Html => page(200),
        }
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let now = Utc::now();
        let mut site = lock(&self.site);
        let outcome = call.execute(&mut site, &self.site, now);
        let format = call.format.unwrap_or(Format::Json);
        // A portal speaks as portals do, whatever stands beside it.
        let of_portal = matches!(call.route, Route::Token | Route::Myself);
        let product = if of_portal { Product::Kubernetes } else { site.options.product };
        let response = respond(&outcome.content, format, product, site.options.real_status_codes);
        let target = if outcome.target.is_empty() { call.route.target() } else { &outcome.target };
        log(
            &mut site,
            call,
            target,
            &outcome.access_key_id,
            status.unwrap_or(response.status().as_u16()),
            outcome.executed,
        );
        Reply::Answer(response)
    }

    fn spare(&self, call: &Call, status: u16) {
        log(&mut lock(&self.site), call, call.route.target(), "", status, false);
    }

    fn fail(&self, _: &Call, status: u16) -> Response<Body> {
        html_page(status, "Error", "The service is temporarily unable to service your request.")
    }

    fn throttle(&self, _: &Call) -> Response<Body> {
        let mut response = html_page(429, "Too Many Requests", "Too many requests.");
        response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        response
    }

    fn later(&self, _: &Call, status: u16, seconds: u32, as_date: bool) -> Response<Body> {
        let mut response = html_page(status, "Later", "The server asks you to come back later.");
        let now = Utc::now();
        let date = http::date;
        let wait = match as_date {
            true => date(now + TimeDelta::seconds(i64::from(seconds))),
            false => seconds.to_string(),
        };
        for (name, text) in [("retry-after", wait), ("date", date(now))] {
            let value = HeaderValue::from_str(&text).expect("dates and numbers are header values");
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn refuse(&self, _: &Call, message: &str) -> Response<Body> {
        let site = lock(&self.site);
        let (product, real) = (site.options.product, site.options.real_status_codes);
        respond(&Outcome::error(400, message).content, Format::Json, product, real)
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        lock(&self.site).down
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let (call, fault, restarting) = self.read(request);
        match restarting {
            Some(how) => {
                let reply = self.restarting(&call, how);
                Box::pin(async move { reply })
            }
            None => carry_out(self, call, fault),
        }
    }
}

fn log(site: &mut Site, call: &Call, target: &str, access_key_id: &str, status: u16, executed: bool) {
    site.requests.push(RequestLine {
        at: Utc::now(),
        operation: call.route.operation().to_owned(),
        user_or_target: target.to_owned(),
        access_key_id: access_key_id.to_owned(),
        status,
        executed,
    });
}

fn version(site: &Site) -> Value {
    let number: f64 = site.options.version.parse().unwrap_or(0.0);
    json!({ "currentVersion": number, "fullVersion": format!("{}.0", site.options.version), "resources": ["cloud", "jobs", "mode"] })
}

/// As Esri's page of the resource "Self" shows a user, in part.
fn myself(site: &Site) -> Value {
    let (role, privileges) = &site.role;
    let user = &site.options.username;
    json!({ "username": user, "fullName": user, "userType": "arcgisonly", "role": role, "privileges": privileges })
}

/// Kubernetes has `isReadOnly`; Server's page for the same resource has `siteMode`.
fn mode(site: &Site) -> Value {
    match (site.options.product, site.read_only) {
        (Product::Server, on) => json!({
            "siteMode": if on { "READ_ONLY" } else { "EDITABLE" }, "copyConfigLocal": false, "lastModified": 0,
        }),
        (Product::Kubernetes, false) => json!({ "isReadOnly": false }),
        (Product::Kubernetes, true) => json!({ "isReadOnly": true, "message": "The site is in read-only mode." }),
    }
}

fn info(site: &Site, request: &Request) -> Value {
    let scheme = if site.options.tls { "https" } else { "http" };
    let host = request.header("host").unwrap_or("127.0.0.1");
    let tokens = if site.has_portal() { "sharing/rest/generateToken" } else { "admin/generateToken" };
    let context = format!("{scheme}://{host}/{}", site.options.context);
    let mut shown = version(site);
    shown["authInfo"] = json!({ "isTokenBasedSecurity": true, "tokenServicesUrl": format!("{context}/{tokens}") });
    if site.options.federated {
        shown["owningSystemUrl"] = json!(context);
    }
    shown
}

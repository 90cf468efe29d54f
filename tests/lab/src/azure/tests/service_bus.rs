//! The data plane of Service Bus tells a wrong key from a right one that may not list queues.

use aws_lc_rs::hmac;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A request for the list of queues, to be spoilt in one place.
#[derive(Clone)]
struct Ask {
    endpoint: String,
    rule: String,
    key: String,
    /// What the token is for; the endpoint where there is none.
    resource: Option<String>,
    expires: i64,
}

impl Ask {
    async fn new(azure: &Azure, rule: &str, slot: &str) -> Self {
        let client = Client::new(azure).await;
        let (namespace, name) = rule.split_once("/AuthorizationRules/").expect("a rule");
        let shown = client.get(&format!("{namespace}?{BUS_VERSION}")).await.json();
        let endpoint = shown["properties"]["serviceBusEndpoint"].as_str().expect("an endpoint").to_owned();
        let expires = Utc::now().timestamp() + 300;
        Self { endpoint, rule: name.to_owned(), key: value(azure, rule, slot), resource: None, expires }
    }

    fn token(&self) -> String {
        self.token_under(self.key.as_bytes())
    }

    fn token_under(&self, key: &[u8]) -> String {
        let escaped = crate::form::encode(self.resource.as_ref().unwrap_or(&self.endpoint));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let signature = STANDARD.encode(hmac::sign(&key, format!("{escaped}\n{}", self.expires).as_bytes()));
        let signature = crate::form::encode(&signature);
        format!("SharedAccessSignature sr={escaped}&sig={signature}&se={}&skn={}", self.expires, self.rule)
    }

    async fn send(&self) -> Answer {
        self.send_with(Some(&self.token()), "$Resources/Queues?api-version=2017-04&$skip=0&$top=1").await
    }

    async fn send_with(&self, token: Option<&str>, path: &str) -> Answer {
        let request = http().get(format!("{}{path}", self.endpoint));
        let request = token.into_iter().fold(request, |request, token| request.header("authorization", token));
        answer(request).await.expect("Service Bus answers")
    }
}

/// What stands in `Detail`, up to what support asks for.
fn detail(answer: &Answer) -> (u16, String) {
    let start = format!("<Error><Code>{}</Code><Detail>", answer.status);
    let rest = answer.text.strip_prefix(&start).unwrap_or_else(|| panic!("no refusal: {}", answer.text));
    let (words, tracking) = rest.split_once(" TrackingId:").expect("a tracking id");
    assert!(tracking.contains("SystemTracker:gis-bus.servicebus.windows.net:$Resources/Queues, Timestamp:"), "{rest}");
    (answer.status, words.to_owned())
}

const UNCLAIMED: &str = "Manage,EntityRead claims required for this operation.";
const WRONG: &str = "InvalidSignature: The token has an invalid signature.";

#[tokio::test]
async fn a_right_key_is_told_what_its_rule_may_not_and_a_wrong_one_is_not() {
    let azure = plain().await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let old = Ask::new(&azure, &rule, "PrimaryKey").await;
    assert_eq!(old.endpoint, format!("{}/gis-bus/", azure.service_bus_url()));
    assert_eq!(detail(&old.send().await), (401, UNCLAIMED.to_owned()));
    let line = azure.requests().pop().expect("a line");
    assert_eq!((line.operation.as_str(), line.user_or_target.as_str()), ("ListQueues", "gis-bus"));
    assert!(line.access_key_id == "PrimaryKey" && line.status == 401 && !line.executed);

    azure.set_rights(&rule, &["Listen", "Send", "Manage"]);
    for slot in ["PrimaryKey", "SecondaryKey"] {
        let listed = Ask::new(&azure, &rule, slot).await.send().await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        assert!(listed.text.contains("<title type=\"text\">Queues</title>"), "{}", listed.text);
        assert!(listed.header("content-type").starts_with("application/atom+xml"));
        let line = azure.requests().pop().expect("a line");
        assert!(line.access_key_id == slot && line.executed);
    }
    azure.regenerate(&rule, "PrimaryKey");
    let wrong = old.send().await;
    assert_eq!(detail(&wrong), (401, WRONG.to_owned()));
    assert_eq!(wrong.header("content-type"), "application/xml; charset=utf-8");
    // The rights are shown, so that a client knows which answer to expect.
    let client = Client::new(&azure).await;
    let shown = client.get(&format!("{rule}?{BUS_VERSION}")).await.json();
    assert_eq!(shown["properties"]["rights"], json!(["Listen", "Send", "Manage"]));
}

#[tokio::test]
async fn a_key_is_good_under_the_name_of_its_rule_in_its_namespace() {
    let azure = plain().await;
    let (one, other) =
        (azure.add_service_bus_rule("gis-bus", "arcgis"), azure.add_service_bus_rule("gis-bus", "other"));
    let ask = Ask::new(&azure, &one, "PrimaryKey").await;
    for name in ["other", "nobody", "Arcgis"] {
        assert_eq!(detail(&Ask { rule: name.to_owned(), ..ask.clone() }.send().await).1, WRONG, "{name}");
    }
    assert_eq!(detail(&Ask { key: value(&azure, &other, "PrimaryKey"), ..ask.clone() }.send().await).1, WRONG);
    // A Service Bus takes the key as the text it is.
    let odd = ask.token_under(&STANDARD.decode(&ask.key).expect("Base64"));
    assert_eq!(detail(&ask.send_with(Some(&odd), "$Resources/Queues?api-version=2021-05").await).1, WRONG);
}

#[tokio::test]
async fn a_token_is_for_a_resource_and_all_below_it() {
    let azure = plain().await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    azure.add_service_bus_rule("bus", "arcgis");
    let ask = Ask::new(&azure, &rule, "PrimaryKey").await;
    let said = |resource: String| {
        let ask = Ask { resource: Some(resource), ..ask.clone() };
        async move { detail(&ask.send().await).1 }
    };
    let host = azure.service_bus_url();
    let bare = "sb://127.0.0.1/gis-bus".to_owned();
    for good in [ask.endpoint.clone(), format!("{host}/GIS-BUS/$Resources/Queues"), bare] {
        assert_eq!(said(good.clone()).await, UNCLAIMED, "{good}");
    }
    let foreign = "https://contoso.servicebus.windows.net/gis-bus".to_owned();
    for bad in [host.clone(), format!("{host}/bus"), format!("{host}/gis-bus/queue"), foreign, "gis-bus".to_owned()] {
        let words = "InvalidAudience: The authorization header contains a token with a wrong audience.";
        assert_eq!(said(bad.clone()).await, words, "{bad}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_in_its_first_word() {
    let azure = plain().await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let ask = Ask::new(&azure, &rule, "SecondaryKey").await;
    let queues = "$Resources/Queues?api-version=2021-05";
    let none = ask.send_with(None, queues).await;
    assert_eq!(detail(&none).1, "MissingToken: The authorization header was not found.");
    let over = Ask { expires: Utc::now().timestamp() - 1, ..ask.clone() }.send().await;
    assert!(detail(&over).1.starts_with("ExpiredToken: The token is expired. Expiration time: '"), "{}", over.text);
    let token = ask.token();
    let bearer = token.replace("SharedAccessSignature", "Bearer");
    let unescaped = token.replace("%3A", ":");
    let (twice, short) = (format!("{token}&se=1"), token.replace("&skn=arcgis", ""));
    let never = token.replace("&se=", "&se=x");
    for odd in [bearer, unescaped, twice, short, never] {
        let answer = ask.send_with(Some(&odd), queues).await;
        assert_eq!(
            detail(&answer),
            (401, "MalformedToken: The provided token is malformed or otherwise invalid.".to_owned())
        );
    }
    for path in ["$Resources/Queues", "$Resources/Queues?api-version=2017-05"] {
        assert_eq!(ask.send_with(Some(&token), path).await.status, 400, "{path}");
    }
    let gone = Ask { endpoint: ask.endpoint.replace("gis-bus", "nobody"), ..ask.clone() };
    assert_eq!(gone.send().await.status, 404);
    // Everybody is told which services are listed for everybody: that proves nothing.
    let root = ask.send_with(None, "").await;
    assert!(root.status == 200 && root.text.contains("Publicly Listed Services"), "{}", root.text);
    assert_eq!(ask.send_with(None, "messages/head").await.status, 404);
}

#[tokio::test]
async fn local_authorization_is_the_whole_namespace_s() {
    let azure = plain().await;
    let (one, other) =
        (azure.add_service_bus_rule("gis-bus", "arcgis"), azure.add_service_bus_rule("gis-bus", "other"));
    azure.allow_keys(&one, false);
    let ask = Ask::new(&azure, &other, "PrimaryKey").await;
    let words =
        "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace.";
    assert_eq!(detail(&ask.send().await), (401, words.to_owned()));
    assert!(!azure.works(&other, &ask.key));
    // For a rule that comes later, and for one made again.
    let late = azure.add_service_bus_rule("gis-bus", "late");
    azure.recreate(&other);
    assert!([&late, &other].iter().all(|rule| !azure.works(rule, &value(&azure, rule, "PrimaryKey"))));
    azure.allow_keys(&late, true);
    assert_eq!(detail(&Ask::new(&azure, &one, "PrimaryKey").await.send().await).1, UNCLAIMED);
}

#[tokio::test]
async fn front_ends_of_service_bus_lag_as_the_keys_do() {
    let azure = start(AzureOptions { key_lag: HOUR, ..AzureOptions::default() }).await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let old = Ask::new(&azure, &rule, "SecondaryKey").await;
    azure.regenerate(&rule, "SecondaryKey");
    let new = Ask { key: value(&azure, &rule, "SecondaryKey"), ..old.clone() };
    assert_eq!((detail(&old.send().await).1.as_str(), detail(&new.send().await).1.as_str()), (UNCLAIMED, WRONG));
    azure.set_options(|options| options.key_lag = Duration::ZERO);
    assert_eq!((detail(&old.send().await).1.as_str(), detail(&new.send().await).1.as_str()), (WRONG, UNCLAIMED));
}

#[tokio::test]
async fn service_bus_stumbles_in_its_own_words() {
    let azure = plain().await;
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let ask = Ask::new(&azure, &rule, "PrimaryKey").await;
    let fault = |fault| azure.fault("ListQueues", fault);
    fault(Fault::Throttle);
    let busy = ask.send().await;
    assert!(busy.header("retry-after") == "1" && detail(&busy).1.starts_with("SubCode=50004."), "{}", busy.text);
    fault(Fault::Error(500));
    assert_eq!(detail(&ask.send().await), (500, "SubCode=50000. Internal Server Error.".to_owned()));
    fault(Fault::Refuse("not <today>".to_owned()));
    assert_eq!(detail(&ask.send().await), (401, "not &lt;today&gt;".to_owned()));
    assert_eq!(detail(&ask.send().await).1, UNCLAIMED);
}

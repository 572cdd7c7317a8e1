//! Clients of the services, each with the endpoint and the credentials that its own tools would use.
//!
//! What a region's URL says comes first, then the environment, then files. Nothing here asks the network: a wrong
//! credential shows at the first request.

use super::ask::Asker;
use super::counts::Counts;
use super::error::{StoreError, StoreErrorKind};
use super::heard::{Heard, Transport};
use super::profile::{self, Profile};
use super::settings::{Variables, text_of};
use super::wire::Connector;
use super::{Patience, StoreSettings};
use crate::base::{Bucket, Service};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// All that is needed of a client.
pub(super) trait Client: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Client for T {}

/// A client and what it can do.
pub(super) struct Connected {
    pub(super) client: Arc<dyn Client>,
    /// Whether it can start a listing behind a key.
    pub(super) lists_from: bool,
    /// How it is reached.
    pub(super) transport: Transport,
    /// What its answers say in passing.
    pub(super) heard: Arc<Heard>,
    /// For requests that the client does not make; of S3.
    pub(super) asker: Option<Asker>,
}

/// Makes the client of a bucket.
///
/// # Errors
/// Something of its configuration is missing or wrong.
pub(super) fn connect(
    bucket: &Bucket,
    settings: &StoreSettings,
    counts: &Arc<Counts>,
) -> Result<Connected, StoreError> {
    let variables = &settings.variables;
    match bucket.service {
        Service::S3 => s3(bucket, variables, |tls| connector(&settings.patience, counts, tls)),
        Service::Gcs => gcs(bucket, variables, connector(&settings.patience, counts, tls(bucket, None)?)),
        Service::Azure => azure(bucket, variables, connector(&settings.patience, counts, tls(bucket, None)?)),
    }
}

fn connector(patience: &Patience, counts: &Arc<Counts>, tls: rustls::ClientConfig) -> Connector {
    Connector {
        tls,
        connect: patience.connect,
        stall: patience.stall,
        counts: Arc::clone(counts),
        heard: Arc::default(),
        clients: Arc::new(AtomicUsize::new(0)),
    }
}

/// Attempts are made elsewhere, each with a signature of its own.
fn once() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

fn options(endpoint: Option<&str>) -> ClientOptions {
    // Without protection only where that was asked for.
    ClientOptions::default().with_allow_http(endpoint.is_some_and(|url| url.starts_with("http://")))
}

/// What this system trusts, or the certificates in a file. TLS 1.3, unless the region's URL allows less.
fn tls(bucket: &Bucket, bundle: Option<&str>) -> Result<rustls::ClientConfig, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    match bundle {
        Some(path) => {
            let wrong = |_| StoreError::unfit(&path, "the file of certificates cannot be read");
            let found = CertificateDer::pem_file_iter(Path::new(path)).map_err(wrong)?;
            let found = found.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            roots.add_parsable_certificates(found);
        }
        // Where there are none, nobody is trusted, and a store without protection can still be used.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = match bucket.tls.as_deref() {
        Some("1.2") => rustls::ALL_VERSIONS,
        _ => &[&rustls::version::TLS13],
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|e| StoreError::unfit(&"TLS", e.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Words of the builders may repeat what is in a file of credentials.
fn built<T>(place: &Bucket, client: object_store::Result<T>) -> Result<T, StoreError> {
    client.map_err(|_| {
        StoreError::unfit(place, "its endpoint or credentials are not valid")
            .advise("check the region's URL, and the variables and files of its service: docs/regions.md")
    })
}

fn s3(
    bucket: &Bucket,
    variables: &Variables,
    connector: impl Fn(rustls::ClientConfig) -> Connector,
) -> Result<Connected, StoreError> {
    let profile = profile::read(variables, bucket.profile.as_deref())?;
    // A profile that the URL names comes before the environment, which is the same for all regions.
    let ordered = |of_profile: Option<&str>, names: &[&str]| {
        let of_profile = of_profile.map(str::to_owned);
        match &bucket.profile {
            Some(_) => of_profile.or_else(|| variables.first(names)),
            None => variables.first(names).or(of_profile),
        }
    };
    let region =
        bucket.region.clone().or_else(|| ordered(profile.get("region"), &["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let endpoint = bucket.endpoint.clone().or_else(|| match variables.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
        true => None,
        false => ordered(profile.endpoint(), &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    });
    let bundle = ordered(profile.get("ca_bundle"), &["AWS_CA_BUNDLE"]);
    // Amazon's own buckets have host names; a dot in one does not fit its certificate.
    let host_style = endpoint.is_none() && !bucket.name.contains('.');
    let region = region.unwrap_or_else(|| "us-east-1".into());
    let connector = connector(tls(bucket, bundle.as_deref())?);
    let options = options(endpoint.as_deref());
    let url = match (&endpoint, host_style) {
        (Some(endpoint), _) => format!("{}/{}", endpoint.trim_end_matches('/'), bucket.name),
        (None, true) => format!("https://{}.s3.{region}.amazonaws.com", bucket.name),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{}", bucket.name),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket.name)
        .with_region(&region)
        .with_virtual_hosted_style_request(host_style)
        .with_disable_bulk_delete(true)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_client_options(options.clone())
        .with_retry(once())
        .with_http_connector(connector.clone());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(sts) = variables.get("AWS_ENDPOINT_URL_STS") {
        builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, sts);
    }
    let client = built(bucket, s3_credentials(builder, bucket, variables, &profile)?.build())?;
    let (transport, heard) = (Transport::of(&url), Arc::clone(&connector.heard));
    // A client of its own, which must not pass for the store's last.
    let own = Connector { clients: Arc::default(), ..connector };
    let asker = built(bucket, Asker::new(client.credentials(), &own, &options, region, url))?;
    Ok(Connected { client: Arc::new(client), lists_from: true, transport, heard, asker: Some(asker) })
}

/// In the order of Amazon's tools: environment, web identity, profile, container, machine.
fn s3_credentials(
    builder: AmazonS3Builder,
    bucket: &Bucket,
    variables: &Variables,
    profile: &Profile,
) -> Result<AmazonS3Builder, StoreError> {
    use AmazonS3ConfigKey as K;
    let web = |builder: AmazonS3Builder, file: &str, role: &str, session: Option<&str>| {
        let builder = builder.with_config(K::WebIdentityTokenFile, file).with_config(K::RoleArn, role);
        builder.with_config(K::RoleSessionName, session.unwrap_or("holdfast"))
    };
    if bucket.profile.is_none() {
        let id = variables.secret("AWS_ACCESS_KEY_ID")?;
        let secret = variables.secret("AWS_SECRET_ACCESS_KEY")?;
        if let Some(builder) = s3_keys(
            &builder,
            bucket,
            id.as_ref().map(|id| id.as_str()),
            secret.as_ref().map(|secret| secret.as_str()),
            variables.secret("AWS_SESSION_TOKEN")?.as_ref().map(|token| token.as_str()),
        )? {
            return Ok(builder);
        }
        if let (Some(file), Some(role)) = (variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"), variables.get("AWS_ROLE_ARN"))
        {
            return Ok(web(builder, &file, &role, variables.get("AWS_ROLE_SESSION_NAME").as_deref()));
        }
    }
    let token = profile.get("aws_session_token");
    let keys =
        s3_keys(&builder, bucket, profile.get("aws_access_key_id"), profile.get("aws_secret_access_key"), token)?;
    if let Some(builder) = keys {
        return Ok(builder);
    }
    if let (Some(file), Some(role)) = (profile.get("web_identity_token_file"), profile.get("role_arn")) {
        return Ok(web(builder, file, role, profile.get("role_session_name")));
    }
    for way in ["role_arn", "credential_process", "sso_session", "sso_start_url"] {
        if profile.get(way).is_some() {
            return Err(StoreError::unfit(bucket, format!("its profile has `{way}`, which is not supported"))
                .advise("use a profile with keys, or with web_identity_token_file"));
        }
    }
    if let Some(uri) = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(builder.with_config(K::ContainerCredentialsRelativeUri, uri));
    }
    let full = variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if let (Some(uri), Some(file)) = (full, variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) {
        let builder = builder.with_config(K::ContainerCredentialsFullUri, uri);
        return Ok(builder.with_config(K::ContainerAuthorizationTokenFile, file));
    }
    match variables.is_true("AWS_EC2_METADATA_DISABLED") || bucket.profile.is_some() {
        true => Err(no_credentials(bucket, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")),
        false => Ok(match variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
            Some(endpoint) => builder.with_metadata_endpoint(endpoint),
            None => builder,
        }),
    }
}

/// With a pair of keys, if there is one.
fn s3_keys(
    builder: &AmazonS3Builder,
    bucket: &Bucket,
    id: Option<&str>,
    secret: Option<&str>,
    token: Option<&str>,
) -> Result<Option<AmazonS3Builder>, StoreError> {
    match (id, secret) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let builder = builder.clone().with_access_key_id(id).with_secret_access_key(secret);
            Ok(Some(match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }))
        }
        (None, Some(_)) => Err(no_credentials(bucket, "AWS_ACCESS_KEY_ID too")),
        (Some(_), None) => Err(no_credentials(bucket, "AWS_SECRET_ACCESS_KEY too")),
    }
}

fn no_credentials(bucket: &Bucket, wanted: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Credentials,
        "use",
        &bucket.to_string(),
        "its credentials are incomplete or missing",
    )
    .advise(format!("set {wanted}: docs/regions.md"))
}

fn gcs(bucket: &Bucket, variables: &Variables, connector: Connector) -> Result<Connected, StoreError> {
    let emulator = variables.get("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
        true => host,
        false => format!("http://{host}"),
    });
    let endpoint = bucket.endpoint.clone().or_else(|| emulator.clone());
    let heard = Arc::clone(&connector.heard);
    let transport = Transport::of(endpoint.as_deref().unwrap_or("https://storage.googleapis.com"));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&bucket.name)
        .with_client_options(options(endpoint.as_deref()))
        .with_retry(once())
        .with_http_connector(connector);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let file = bucket.credentials.clone().or_else(|| variables.get("GOOGLE_APPLICATION_CREDENTIALS"));
    match file {
        Some(file) => {
            gcs_file(bucket, &file)?;
            builder = builder.with_application_credentials(file);
        }
        // An emulator knows nobody; without any token the client would look for one.
        None if emulator.is_some() && bucket.endpoint.is_none() => builder = builder.with_bearer_token("emulator"),
        None => {}
    }
    let client = built(bucket, builder.build())?;
    Ok(Connected { client: Arc::new(client), lists_from: true, transport, heard, asker: None })
}

/// Refuses by name the kinds of files that cannot be used.
fn gcs_file(bucket: &Bucket, file: &str) -> Result<(), StoreError> {
    let text = text_of(Path::new(file))?;
    let read: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let kind = read.as_ref().and_then(|read| read.get("type")?.as_str());
    match kind {
        Some("service_account" | "authorized_user") => Ok(()),
        Some("external_account" | "impersonated_service_account" | "external_account_authorized_user") => {
            Err(StoreError::unfit(bucket, "its file of credentials is of a kind that is not supported")
                .advise("use the key of a service account, or run where a metadata service hands out tokens"))
        }
        _ => Err(StoreError::unfit(&file, "the file holds no credentials of Google")),
    }
}

fn azure(bucket: &Bucket, variables: &Variables, connector: Connector) -> Result<Connected, StoreError> {
    let text = variables.secret("AZURE_STORAGE_CONNECTION_STRING")?;
    let text = text.as_ref().map(|text| text.as_str()).unwrap_or_default();
    let part = |name: &str| {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let names = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
    let account = bucket.account.clone().or_else(|| variables.first(&names)).or_else(|| part("AccountName"));
    let Some(account) = account else {
        return Err(StoreError::unfit(bucket, "no account is named")
            .advise("add `account=NAME` to the region's URL, or set AZURE_STORAGE_ACCOUNT"));
    };
    let endpoint = bucket.endpoint.clone().or_else(|| variables.get("AZURE_STORAGE_ENDPOINT"));
    let endpoint = endpoint.or_else(|| part("BlobEndpoint"));
    let heard = Arc::clone(&connector.heard);
    let usual = || format!("https://{account}.blob.core.windows.net");
    let transport = Transport::of(&endpoint.clone().unwrap_or_else(usual));
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&bucket.name)
        .with_account(account)
        .with_client_options(options(endpoint.as_deref()))
        .with_retry(once())
        .with_http_connector(connector);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let key =
        variables.first_secret(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"])?;
    let sas = variables.first_secret(&["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"])?;
    if let Some(key) = key.map(|key| key.to_string()).or_else(|| part("AccountKey")) {
        builder = builder.with_access_key(key);
    } else if let Some(sas) = sas.map(|sas| sas.to_string()).or_else(|| part("SharedAccessSignature")) {
        builder = builder.with_config(object_store::azure::AzureConfigKey::SasKey, sas);
    } else {
        builder = azure_identity(builder, variables)?;
    }
    let client = built(bucket, builder.build())?;
    Ok(Connected { client: Arc::new(client), lists_from: false, transport, heard, asker: None })
}

/// An identity of Entra: with a federated token, with a secret, or the machine's own.
fn azure_identity(builder: MicrosoftAzureBuilder, variables: &Variables) -> Result<MicrosoftAzureBuilder, StoreError> {
    let mut builder = builder;
    if let Some(id) = variables.get("AZURE_CLIENT_ID") {
        builder = builder.with_client_id(id);
    }
    if let Some(tenant) = variables.get("AZURE_TENANT_ID") {
        builder = builder.with_tenant_id(tenant);
    }
    if let Some(host) = variables.get("AZURE_AUTHORITY_HOST") {
        builder = builder.with_authority_host(host);
    }
    if let Some(file) = variables.get("AZURE_FEDERATED_TOKEN_FILE") {
        return Ok(builder.with_federated_token_file(file));
    }
    if let Some(secret) = variables.secret("AZURE_CLIENT_SECRET")? {
        return Ok(builder.with_client_secret(secret.as_str()));
    }
    Ok(match variables.get("IDENTITY_ENDPOINT") {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    })
}

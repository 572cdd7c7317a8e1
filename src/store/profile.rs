//! The files of the AWS tools: sections of `name = value`, in `~/.aws/config` and `~/.aws/credentials`.

use super::error::StoreError;
use super::settings::{Variables, text_of};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// One profile, of both files; what the file of credentials says comes first.
#[derive(Default)]
pub(super) struct Profile {
    values: BTreeMap<String, Zeroizing<String>>,
    /// The endpoint that its section of services has for S3.
    s3_endpoint: Option<String>,
}

impl Profile {
    /// A value; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Where its S3 is, if that is not Amazon's.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.s3_endpoint.as_deref().or_else(|| self.get("endpoint_url"))
    }
}

/// Reads a profile; without a name the one that the variables name, or `default`. Only what was named must be there.
///
/// # Errors
/// A file cannot be read, or no file has the profile that was named.
pub(super) fn read(variables: &Variables, name: Option<&str>) -> Result<Profile, StoreError> {
    let named = name.map(str::to_owned).or_else(|| variables.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]));
    let name = named.as_deref().unwrap_or("default");
    let config = sections(variables, "AWS_CONFIG_FILE", ".aws/config")?;
    let credentials = sections(variables, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")?;
    let in_config = match name {
        "default" => config.get("default").or_else(|| config.get("profile default")),
        _ => config.get(&format!("profile {name}")),
    };
    let in_credentials = credentials.get(name);
    if named.is_some() && in_config.is_none() && in_credentials.is_none() {
        let what = "no such profile is in ~/.aws/config or ~/.aws/credentials";
        return Err(StoreError::unfit(&format!("profile {name}"), what)
            .advise("AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name other files"));
    }
    let mut profile = Profile::default();
    for section in [in_config, in_credentials].into_iter().flatten() {
        profile.values.extend(section.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let services = profile.get("services").and_then(|services| config.get(&format!("services {services}")));
    profile.s3_endpoint = services.and_then(|section| section.get("s3.endpoint_url")).map(|url| url.to_string());
    Ok(profile)
}

type Section = BTreeMap<String, Zeroizing<String>>;

/// The sections of one of the files; where nobody named it, it need not be there.
fn sections(variables: &Variables, name: &str, usual: &str) -> Result<BTreeMap<String, Section>, StoreError> {
    let path = match variables.get(name) {
        Some(path) => PathBuf::from(path),
        None => match variables.at_home(usual).filter(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(BTreeMap::new()),
        },
    };
    Ok(parse(&text_of(&path)?))
}

/// `[section]`, then `name = value`; what is indented below a name without a value is `name.inner`. Lines that are
/// none of these belong to tools that know more.
fn parse(text: &str) -> BTreeMap<String, Section> {
    let mut all: BTreeMap<String, Section> = BTreeMap::new();
    let (mut section, mut outer) = (String::new(), None::<String>);
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(head) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = head.0.split_whitespace().collect::<Vec<_>>().join(" ").replace(['"', '\''], "");
            all.entry(section.clone()).or_default();
            outer = None;
            continue;
        }
        let Some((name, value)) = bare.split_once('=') else { continue };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        // A comment begins with a blank; a secret may have a `#` in it.
        let value = [" #", " ;", "\t#", "\t;"].iter().fold(value, |v, mark| v.split(mark).next().unwrap_or(v)).trim();
        let indented = line.starts_with([' ', '\t']);
        let name = match (&outer, indented) {
            (Some(outer), true) => format!("{outer}.{name}"),
            _ => {
                outer = value.is_empty().then(|| name.clone());
                name
            }
        };
        if !section.is_empty() {
            all.entry(section.clone()).or_default().insert(name, Zeroizing::new(value.to_owned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(config: &str, credentials: &str) -> (tempfile::TempDir, Variables) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(dir.path().join(".aws/config"), config).unwrap();
        std::fs::write(dir.path().join(".aws/credentials"), credentials).unwrap();
        let variables = Variables::of([("HOME", dir.path().to_str().unwrap())]);
        (dir, variables)
    }

    const CONFIG: &str = "\
# people's own notes
[default]
region = eu-west-1
[profile  other]
region=eu-central-1 # Frankfurt
endpoint_url = https://everything.example
services = mine
aws_access_key_id = FROM-CONFIG
s3 =
  max_concurrent_requests = 3
role_arn = x
[services mine]
dynamodb =
  endpoint_url = https://db.example
s3 =
  endpoint_url = https://s3.example
";

    #[test]
    fn both_files_are_one_profile() {
        let credentials = "[other]\naws_access_key_id = FROM#CREDENTIALS\nAWS_Secret_Access_Key=a=b\n";
        let (_dir, variables) = home(CONFIG, credentials);
        let other = read(&variables, Some("other")).unwrap();
        assert_eq!(other.get("aws_access_key_id"), Some("FROM#CREDENTIALS"));
        assert_eq!(other.get("aws_secret_access_key"), Some("a=b"));
        assert_eq!(other.get("region"), Some("eu-central-1"));
        assert_eq!(other.get("role_arn"), Some("x"));
        assert_eq!(other.endpoint(), Some("https://s3.example"));
        let default = read(&variables, None).unwrap();
        assert_eq!((default.get("region"), default.endpoint()), (Some("eu-west-1"), None));
    }

    #[test]
    fn a_profile_that_was_named_must_be_there() {
        let (_dir, variables) = home(CONFIG, "");
        assert!(read(&variables, Some("nobody")).err().unwrap().to_string().contains("no such profile"));
        assert!(read(&Variables::of([]), None).unwrap().get("region").is_none());
        assert!(read(&Variables::of([("AWS_PROFILE", "x")]), None).is_err());
        assert!(read(&Variables::of([("AWS_CONFIG_FILE", "/does/not/exist")]), None).is_err());
    }
}

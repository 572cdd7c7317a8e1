//! What the repository itself has in a bucket that is a source or a target: it must neither be backed up nor written over.

use crate::base::Bucket;
use crate::region::Regions;

/// How the keys of each region in this bucket begin: empty, or with a slash at its end.
pub fn prefixes(regions: &Regions, place: &Bucket) -> Vec<String> {
    regions.buckets().filter(|own| is_same(own, place)).map(below).collect()
}

/// How the keys of what a bucket's address names begin: empty, or with a slash at its end.
pub fn below(place: &Bucket) -> String {
    if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) }
}

/// Whether both are the same bucket, whatever prefixes they name.
fn is_same(one: &Bucket, other: &Bucket) -> bool {
    let names = |bucket: &Bucket| (bucket.service, bucket.name.clone(), endpoint(bucket.endpoint.as_deref()));
    names(one) == names(other)
}

/// An endpoint without what changes nothing: a slash at its end, the port that its scheme has anyway, the case of letters.
/// Those of Amazon are one, as the names of its buckets are unique.
fn endpoint(text: Option<&str>) -> String {
    let text = text.unwrap_or_default().trim_end_matches('/').to_ascii_lowercase();
    let bare = match text.split_once("://") {
        Some(("http", host)) => host.strip_suffix(":80").map(|host| format!("http://{host}")),
        Some(("https", host)) => host.strip_suffix(":443").map(|host| format!("https://{host}")),
        _ => None,
    };
    let text = bare.unwrap_or(text);
    if text.ends_with(".amazonaws.com") { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Service;

    #[test]
    fn one_bucket_has_several_addresses() {
        let bucket = |endpoint: Option<&str>, prefix: &str| Bucket {
            endpoint: endpoint.map(str::to_owned),
            ..Bucket::new(Service::S3, "b", prefix)
        };
        for (one, other, same) in [
            (Some("http://h:1"), Some("http://h:1/"), true),
            (Some("http://H:1"), Some("http://h:1"), true),
            (Some("http://h:80"), Some("http://h"), true),
            (Some("https://h:443/"), Some("https://h"), true),
            (Some("https://s3.eu-central-1.amazonaws.com"), None, true),
            (Some("http://h:1"), Some("http://h:2"), false),
            (Some("https://h:80"), Some("https://h"), false),
            (Some("http://h"), None, false),
        ] {
            assert_eq!(is_same(&bucket(one, "p"), &bucket(other, "")), same, "{one:?} {other:?}");
        }
        assert!(!is_same(&bucket(None, ""), &Bucket::new(Service::S3, "c", "")));
        assert_eq!((below(&bucket(None, "")), below(&bucket(None, "a/b"))), (String::new(), "a/b/".to_owned()));
    }
}

//! Credentials in the addresses that texts name: who watches a job is not to see them.
//!
//! ```text
//!   errors and rows of users ──► samples, warnings, reasons, the last failure ──redacted──► status, metrics, logs
//! ```
//!
//! Errors of what users call often name the address that was called, with its password or its signature. So every text that is not
//! the engine's own goes through here where it enters what is shown.

/// What stands for a secret.
const HIDDEN: &str = "***";
/// What the name of a parameter has in it whose value is a secret: `access_token`, `X-Amz-Signature`, `sig`, `api_key`, ….
const SECRET: [&str; 11] = ["token", "sig", "secret", "pass", "pwd", "key", "auth", "cred", "code", "session", "jwt"];

/// Words that have one of these in them and are no secrets.
const HARMLESS: [&str; 7] = ["author", "authors", "keyword", "keywords", "monkey", "postcode", "zipcode"];

/// Where the path and the query of an address are for whoever is called, and often have an `@` in them. So does what is built on these:
/// `git+https`.
const WEB: [&str; 6] = ["http", "https", "ws", "wss", "grpc", "grpcs"];

/// Where an address names a place, and nobody who may go there.
const PLACES: [&str; 14] =
    ["s3", "s3a", "s3n", "gs", "gcs", "file", "az", "azure", "adl", "abfs", "abfss", "wasb", "wasbs", "hdfs"];

/// The text without the credentials in the addresses in it: `https://***@host/pay?token=***&amount=5`.
pub(crate) fn redacted(text: &str) -> String {
    without_values(&without_users(text))
}

/// Where an address ends in a text.
fn ends_address(c: char) -> bool {
    c.is_whitespace() || "\"'`<>".contains(c)
}

/// Without what stands before the host.
fn without_users(text: &str) -> String {
    const BEFORE: &str = "://";
    let (mut seen, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(BEFORE) {
        seen.push_str(before);
        seen.push_str(BEFORE);
        let address = after.split(ends_address).next().unwrap_or_default();
        let authority = address.split(['/', '?', '#']).next().unwrap_or_default();
        rest = after;
        if let Some((_, host)) = ends_user(before, address, authority).and_then(|at| after.split_at_checked(at)) {
            seen.push_str(HIDDEN);
            rest = host;
        } else if has_password(authority) {
            // The text was cut before the host.
            seen.push_str(HIDDEN);
            rest = after.strip_prefix(authority).unwrap_or_default();
        }
    }
    seen + rest
}

/// Where the `@` before the host is. What should be all of the user and the host, the authority, ends at the first `/`, `?` or `#`. But
/// against the rules a password may have these in it, and rather too much is hidden than a part of it shown.
fn ends_user(before: &str, address: &str, authority: &str) -> Option<usize> {
    let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).next().unwrap_or_default();
    let is_one_of = |schemes: &[&str], scheme: &str| schemes.iter().any(|one| scheme.eq_ignore_ascii_case(one));
    if is_one_of(&WEB, scheme.rsplit('+').next().unwrap_or_default()) {
        if authority.contains('@') {
            return address.split(['?', '#']).next().and_then(|path| path.rfind('@'));
        }
        // An `@` behind a host is nothing special here.
        return if is_host(authority) { None } else { address.rfind('@') };
    }
    let names_a_place = is_one_of(&PLACES, scheme) && (!authority.contains(':') || authority.starts_with('['));
    if names_a_place { authority.rfind('@') } else { address.rfind('@') }
}

/// Whether this is a host for sure, or may only be one: what has a colon may be a user and a password that begins with digits, too.
fn is_host(authority: &str) -> bool {
    match authority.split_once(':') {
        Some((name, port)) if !authority.starts_with('[') => {
            let has_host = name.contains('.') || name.eq_ignore_ascii_case("localhost");
            has_host && port.chars().all(|c| c.is_ascii_digit())
        }
        _ => true,
    }
}

/// Whether what stands behind the colon is no port.
fn has_password(authority: &str) -> bool {
    let port = authority.split_once(':').filter(|_| !authority.starts_with('['));
    let is_number =
        |port: &str| port.trim_end_matches(|c: char| c.is_ascii_punctuation()).chars().all(|c| c.is_ascii_digit());
    port.is_some_and(|(_, port)| !is_number(port))
}

/// Without the values of parameters that are secrets.
fn without_values(text: &str) -> String {
    let (mut seen, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('=') {
        seen.push_str(before);
        seen.push('=');
        let name = before.rfind(['?', '&', ';', '#']).and_then(|at| before.get(at + 1..)).unwrap_or_default();
        let name = name.to_ascii_lowercase();
        let is_name = !name.is_empty() && !name.contains(ends_address);
        let value = after.find(|c| ends_address(c) || "&;#".contains(c)).unwrap_or(after.len());
        rest = after;
        if is_name && value > 0 && is_secret(&name) {
            seen.push_str(HIDDEN);
            rest = after.get(value..).unwrap_or_default();
        }
    }
    seen + rest
}

/// Whether the value of a parameter of this name, in small letters, is a secret.
fn is_secret(name: &str) -> bool {
    let words = name.split(['_', '-', '.']).filter(|word| !HARMLESS.contains(word));
    words.into_iter().any(|word| SECRET.iter().any(|secret| word.contains(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_addresses_are_hidden() {
        for (text, shown) in [
            ("GET https://ann:x@example.org/a failed", "GET https://***@example.org/a failed"),
            ("https://ghp_x@example.org", "https://***@example.org"),
            (
                "\"amqp://a:x/y@h:5/v\" and postgres://b:x@[::1]:5432/d",
                "\"amqp://***@h:5/v\" and postgres://***@[::1]:5432/d",
            ),
            ("two http://a:x@b@c/", "two http://***@c/"),
            ("amqp://a:12/34x@h", "amqp://***@h"),
            ("mongodb://u:1#x@h/", "mongodb://***@h/"),
            ("https://u:p/w@h/ and https://u:x#y@h", "https://***@h/ and https://***@h"),
            ("http://u:p@x/y@h/?q=1, and more", "http://***@h/?q=1, and more"),
            ("amqps://u:p@x/y@h/v", "amqps://***@h/v"),
            ("https://ann:x@h/u?mail=a@b", "https://***@h/u?mail=a@b"),
            ("https://ghp_x@h/@ann#c@d", "https://***@ann#c@d"),
            // A password that begins as a port does.
            ("https://elastic:7/Kd3xQ@es:9200/_bulk", "https://***@es:9200/_bulk"),
            ("http://ann:2024#Secret@h/", "http://***@h/"),
            ("wss://u:12?x@h and grpc://u:12/x@h", "wss://***@h and grpc://***@h"),
            ("git+HTTPS://u:12/x@h/?mail=a@b", "git+HTTPS://***@b"),
            ("https://ann:2024-/x@h and HTTPS://api:443/a@b", "https://***@h and HTTPS://***@b"),
            // One that has an `@` before what ends the host.
            ("http://user:Xk@9/zQ@db.example.com/", "http://***@db.example.com/"),
            // A secret alone.
            ("redis://p4/ssw0rd@h:6379, nats://s3cr/et@h:4222", "redis://***@h:6379, nats://***@h:4222"),
            ("redis://[p4/ssw0rd@h:6379 and nats://s3?c#et@h", "redis://***@h:6379 and nats://***@h"),
            ("s3://key:se/cret@bucket/a", "s3://***@bucket/a"),
            ("https://h/u?mail=a@b&token=x", "https://h/u?mail=a@b&token=***"),
            ("/p?author_key=x&authorization=x&my-author=n", "/p?author_key=***&authorization=***&my-author=n"),
            ("https://h/p?a=1&token=x&X-Amz-Signature=x#k", "https://h/p?a=1&token=***&X-Amz-Signature=***#k"),
            ("POST /p?sv=1&sig=x%2Fx: 403", "POST /p?sv=1&sig=*** 403"),
            ("https://h/#access_token=x&n=2", "https://h/#access_token=***&n=2"),
            ("cut: https://ann:x", "cut: https://***"),
            ("cut: https://ann:x…", "cut: https://***"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "",
            "n: 5, key=value, a == b, x://",
            "http://127.0.0.1:8080: connection refused",
            "see https://example.org:443/users/ann?page=2, and http://[::1]:80/ or ann@example.org.",
            "https://h/?author=ann&postcode=12&keyword=x",
            // An `@` behind the host is none before it.
            "https://api/u?mail=a@b",
            "https://api?mail=a@b",
            "http://127.0.0.1:8080/users/@ann#a@b",
            "https://[::1]:443/?mail=a@b and HTTPS://api.example.org:443/a@b",
            "http://LOCALHOST:8080/a@b and grpc+https://api/a@b",
            "s3://bucket/logs/a@b.json, file:///tmp/a@b",
            "az://container/a@b, hdfs://[::1]:8020/a@b",
            "kafka://broker:9092, ä://ö?ü=ß&token=",
        ] {
            assert_eq!(redacted(text), text);
        }
    }
}

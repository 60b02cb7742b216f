//! What is refused when a file is loaded, and what it says.

use super::*;

#[test]
fn what_does_not_fit_is_refused_by_its_key() {
    let url = "url = 'https://a/'\n";
    for (keys, key, says) in [
        ("url = 'a/b'", "url", "write a whole one"),
        ("url = 'ftp://a/'", "url", "http:// or https://"),
        ("url = 'https://u:p@a/'", "url", "auth = { basic"),
        ("url = 'ftp://${order}/'", "url", "http:// or https://"),
        ("url = 'https://u:${secret:p}@a/'", "url", "auth = { basic"),
        (&format!("{url}method = 'G T'"), "method", "no method"),
        (&format!("{url}method = 'get'"), "method", "write GET"),
        (&format!("{url}headers = {{ 'a b' = 'c' }}"), "headers.a b", "no header's name"),
        (&format!("{url}headers = {{ a = \"b\\nc\" }}"), "headers.a", "line end"),
        (
            &format!("{url}headers = {{ content-length = 3 }}"),
            "headers.content-length",
            "leave it out",
        ),
        (&format!("{url}body = 'a'\njson = {{}}"), "json", "one body"),
        (&format!("{url}body_file = '/no/such/file'"), "body_file", "cannot read"),
        (&format!("{url}version = '3'"), "version", "later version"),
        (&format!("{url}version = '2'\nreuse = true"), "reuse", "speaks HTTP/1.1"),
        (&format!("{url}auth = {{ sigv4 = 'execute-api' }}"), "auth.sigv4", "later version"),
        (&format!("{url}auth = {{ oauth2 = {{ a = 1 }} }}"), "auth.oauth2", "later version"),
        (
            &format!("{url}auth = {{ bearer = 'a' }}\nheaders = {{ Authorization = 'b' }}"),
            "headers.authorization",
            "keep one",
        ),
        (&format!("{url}connect = 'a'"), "connect", "host:port"),
        (&format!("{url}connect = 'a:0'"), "connect", "host:port"),
        (&format!("{url}resolver = 'dns.example.com'"), "resolver", "its address"),
        (&format!("{url}proxy = 'nonsense'"), "proxy", ""),
        (&format!("{url}tls = {{ ca = '/no/such/file' }}"), "tls.ca", ""),
        ("url = 'http://127.0.0.1/'\nip = '6'", "ip", "write ip = \"4\""),
        ("url = 'http://a/'\nfollow = 0\ntls = { verify = false }", "tls", "https://"),
    ] {
        let refused = http(keys).expect_err(keys);
        assert_eq!(refused.key, key, "{keys}: {}", refused.message);
        assert!(refused.message.contains(says), "{keys}: {}", refused.message);
    }
}

#[test]
fn what_fits_is_taken() {
    for keys in [
        "url = 'https://${order}/x'",
        "url = '${link}'",
        "url = '${link}/login?next=https://a/'",
        "url = 'https://a/${order}@home'",
        "url = 'HTTPS://A.example/'\nmethod = 'PURGE'",
        "url = 'https://a/'\nresolver = ['10.0.0.2', '10.0.0.3:5353']\nconnect = '[::1]:443'",
        "url = 'https://a/'\ncompression = ['br']\nmax_body = '2MiB'\nip = '6'",
        "url = 'https://a/'\nauth = { basic = { user = 'u' } }",
        "url = 'http://[::1]/'\nip = '6'",
        "url = 'http://[::1]/'\nip = '4'\nconnect = '127.0.0.1:80'",
    ] {
        http(keys).expect(keys);
    }
}

#[test]
fn a_misspelt_key_or_value_is_a_mistake_of_shape() {
    for keys in [
        "methud = 'GET'",
        "version = '4'",
        "compression = ['deflate']",
        "auth = { digest = 1 }",
        "ip = 4",
    ] {
        let text = format!("url = 'https://a/'\n{keys}");
        assert!(toml::from_str::<Settings>(&text).is_err(), "{keys}");
    }
}

#[test]
fn tls_is_no_subject_of_a_url_in_the_open() {
    let open = http("url = 'http://a/'").unwrap();
    let closed = http("url = 'https://a/'").unwrap();
    for subject in ["tls.version", "cert.expires_in"] {
        assert!(open.has_subject(subject).unwrap_err().contains("https://"));
        assert_eq!(closed.has_subject(subject), Ok(()));
    }
    assert_eq!(open.has_subject("status"), Ok(()));
}

#[test]
fn nothing_secret_prints() {
    let http = http("url = 'https://a/'\nauth = { bearer = 'hunter2' }").unwrap();
    assert!(!format!("{http:?}").contains("hunter2"), "{http:?}");
}

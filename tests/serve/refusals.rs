//! Who may not, and is told why: foreign hosts, foreign pages, no token or a wrong one, forms, and paths that lead elsewhere.

use std::sync::LazyLock;

use tests::on_two_threads;
use windrow::{prelude::*, serve::Serve};

use super::{
    client,
    client::{Answer, Client},
    numbers, until,
};

/// Long enough, and with other characters than a drawn one has.
const TOKEN: &str = "a+token/of=ours&more%20";

/// Runs a job that is served in this way, and asks it.
fn asked(serve: impl Into<Serve>, ask: impl FnOnce(&Client)) {
    on_two_threads(async {
        let running = numbers("refusing").serve(serve).start().await.unwrap();
        let client = client(&running);
        ask(&client);
        // Nobody of those has stopped it, or slowed it down.
        let handle = running.handle();
        let read = handle.status().operators[0].rows_out;
        until("it reads on", || handle.status().operators[0].rows_out > read).await;
        handle.stop();
        assert!(running.wait().await.unwrap().stopped);
    });
}

/// With this Host, and otherwise with everything that a change needs.
fn with_host(client: &Client, line: &str, host: &str) -> Answer {
    let headers = client.headers();
    client.raw(format!("{line} HTTP/1.1\r\n{host}{headers}content-length: 2\r\n\r\n{{}}").as_bytes()).unwrap()
}

#[test]
fn a_foreign_host_is_refused() {
    asked(Serve::at("127.0.0.1:0").host("jobs.example.com").token(Secret::new(TOKEN)), |client| {
        for line in
            ["GET /", "GET /assets/page.js", "GET /api/status", "GET /nothing", "POST /api/stop", "POST /api/cancel"]
        {
            for host in
                ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.7", "localhost.evil.example"]
            {
                let refused = with_host(client, line, &format!("host: {host}\r\n")).is(403);
                assert!(refused.error().contains(&format!("{host:?}")) && refused.error().contains("Serve::host"));
            }
            with_host(client, line, "").is(400);
            with_host(client, line, "host: localhost\r\nhost: evil.example\r\n").is(400);
            with_host(client, line, "host: evil.example\r\nhost: localhost\r\n").is(400);
        }
        for host in ["localhost", "LocalHost:7", "[::1]:7", "127.0.0.1", "jobs.example.com:443"] {
            with_host(client, "GET /api/status", &format!("host: {host}\r\n")).is(200);
        }
        // As for a proxy.
        for line in ["GET http://evil.example/api/status", "GET http://localhost/api/status", "CONNECT localhost:80"] {
            with_host(client, line, "host: localhost\r\n").is(400);
        }
    });
}

#[test]
fn a_foreign_page_is_refused() {
    asked("127.0.0.1:0", |client| {
        let own = client.address;
        let port = own.port();
        let foreign = [
            "http://evil.example".to_string(),
            format!("http://evil.example:{port}"),
            format!("http://localhost:{port}"),
            "http://127.0.0.1:1".into(),
            format!("ftp://{own}"),
            format!("http://{own}.evil.example"),
            format!("http://evil.example/http://{own}"),
            "null".into(),
            String::new(),
        ];
        for origin in foreign {
            for line in ["GET /", "GET /api/status", "POST /api/stop"] {
                let headers = format!("origin: {origin}\r\n{}", client.headers());
                let refused = client.request(line, &headers, "{}").is(403);
                assert!(!refused.head.contains("access-control"), "{refused:?}");
            }
        }
        for site in ["cross-site", "same-site", "whatever"] {
            let headers = format!("sec-fetch-site: {site}\r\n");
            for line in ["GET /", "GET /api/status", "GET /assets/page.js", "GET /state/1?sql=select"] {
                client.request(line, &headers, "").is(403);
            }
            // A link to the page may be followed from anywhere; nothing else may.
            let opened = format!("{headers}sec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n");
            client.request("GET /", &opened, "").is(200);
            client.request("GET /", &opened.replace("document", "iframe"), "").is(403);
            client.request("GET /api/status", &opened, "").is(403);
            client.request("POST /api/stop", &format!("{opened}{}", client.headers()), "{}").is(403);
        }
        for headers in [
            "sec-fetch-site: same-origin\r\n".into(),
            "sec-fetch-site: none\r\n".into(),
            format!("origin: http://{own}\r\n"),
        ] {
            client.request("GET /api/status", &headers, "").is(200);
        }
        // What a browser asks before it lets a page send JSON elsewhere.
        let preflight = "origin: http://evil.example\r\naccess-control-request-method: POST\r\n";
        let refused = client.request("OPTIONS /api/stop", preflight, "").is(403);
        assert!(!refused.head.contains("access-control"), "{refused:?}");
    });
}

/// Everything that changes something.
const CHANGES: &[(&str, &str)] = &[
    ("POST /api/stop", "{}"),
    ("POST /api/stop", r#"{"savepoint": "a"}"#),
    ("POST /api/cancel", "{}"),
    ("POST /api/savepoint", r#"{"name": "a"}"#),
    ("POST /state/1", r#"{"sql": "select 1", "fresh": true}"#),
    ("POST /", "{}"),
    ("DELETE /api/status", "{}"),
];

/// What is no token.
static WRONG: LazyLock<Vec<String>> = LazyLock::new(|| {
    let wrong = |token: &str| format!("authorization: Bearer {token}\r\n");
    let mut headers: Vec<String> = ["", "x", "null", "undefined", &"0".repeat(64)].map(wrong).to_vec();
    headers.extend(
        ["", "authorization: \r\n", "authorization: Bearer\r\n", "authorization: Basic dG9rZW4=\r\n"].map(String::from),
    );
    headers
});

#[test]
fn changes_need_the_token_and_json() {
    asked("127.0.0.1:0", |client| {
        let json = "content-type: application/json\r\n";
        let (almost, longer) = (&client.token[1..], format!("{}0", client.token));
        let near =
            [almost, &longer, &client.token.to_uppercase()].map(|token| format!("authorization: Bearer {token}\r\n"));
        let unschemed = format!("authorization: {}\r\n", client.token);
        let basic = format!("authorization: Basic {}\r\n", client.token);
        for (line, body) in CHANGES {
            for wrong in WRONG.iter().chain(&near).chain([&unschemed, &basic]) {
                let refused = client.request(line, &format!("{wrong}{json}"), body).is(401);
                assert!(refused.head.contains("www-authenticate: bearer"), "{refused:?}");
                assert!(refused.error().contains("#token="), "{refused:?}");
            }
            let right = format!("authorization: bearer {}\r\n", client.token);
            let two = format!("{right}authorization: Bearer x\r\n{json}");
            client.request(line, &two, body).is(400);
            let forms = [
                "",
                "content-type: text/plain\r\n",
                "content-type: application/x-www-form-urlencoded\r\n",
                "content-type: multipart/form-data; boundary=x\r\n",
                "content-type: text/plain; application/json\r\n",
                "content-type: application/json-not\r\n",
            ];
            for form in forms {
                assert!(
                    client.request(line, &format!("{right}{form}"), body).is(415).error().contains("application/json")
                );
            }
        }
        // A query takes time and memory, and is no change.
        let query = "/state/1?sql=select%201";
        for line in [format!("GET {query}"), format!("HEAD {query}")] {
            for wrong in WRONG.iter().chain(&near).chain([&unschemed, &basic]) {
                client.request(&line, wrong, "").is(401);
            }
        }
        let right = format!("authorization: Bearer {}\r\n", client.token);
        client.request(&format!("GET {query}"), &right, "").is(501);
        client.get(&format!("{query}&token={}", client.token)).is(401);
        // A token in the path is none.
        client.request(&format!("POST /api/stop?token={}", client.token), json, "{}").is(401);
        let with_charset =
            format!("authorization: Bearer {}\r\ncontent-type: Application/JSON; charset=utf-8\r\n", client.token);
        client.request("POST /api/savepoint", &with_charset, r#"{"name": "a"}"#).is(409);
    });
}

#[test]
fn with_a_token_of_ones_own_everything_but_the_page_needs_it() {
    let serve = Serve::at("127.0.0.1:0").token(Secret::new(TOKEN));
    asked(serve, |client| {
        assert_eq!(client.token, TOKEN);
        for path in ["/", "/assets/page.css", "/assets/page.js"] {
            client.get(path).is(200);
        }
        let paths = [
            "/api/status",
            "/api/words",
            "/api/plan",
            "/api/state",
            "/metrics",
            "/state/1?sql=select",
            "/api/stop",
            "/nothing",
            "/assets/x",
        ];
        for path in paths {
            client.get(path).is(401);
            for wrong in WRONG.iter() {
                client.request(&format!("GET {path}"), wrong, "").is(401);
            }
            let answer = client.request(&format!("GET {path}"), &client.headers(), "");
            assert_ne!(answer.status, 401, "{path}");
        }
        client.request("GET /api/status", &client.headers(), "").is(200);
        for (line, body) in CHANGES {
            client.request(line, "content-type: application/json\r\n", body).is(401);
        }
    });
}

/// Through a proxy everybody is one of this machine.
#[test]
fn what_everybody_here_may_read_a_proxy_may_not() {
    const PROXIES: [&str; 4] = [
        "forwarded: for=192.0.2.7",
        "x-forwarded-for: 192.0.2.7",
        "X-Forwarded-Host: localhost",
        "x-real-ip: 127.0.0.1",
    ];
    asked("127.0.0.1:0", |client| {
        for proxied in PROXIES.map(|header| format!("{header}\r\n")) {
            for path in ["/api/status", "/api/words", "/api/plan", "/api/state", "/metrics", "/nothing"] {
                let refused = client.request(&format!("GET {path}"), &proxied, "").is(403).error();
                assert!(refused.contains("a proxy") && refused.contains("Serve::token"), "{refused}");
            }
            client.request("GET /", &proxied, "").is(200);
        }
    });
    let named = Serve::at("127.0.0.1:0").host("jobs.example.com").token(Secret::new(TOKEN));
    asked(named, |client| {
        for proxied in PROXIES.map(|header| format!("{header}\r\n")) {
            client.request("GET /api/status", &proxied, "").is(401);
            client.request("GET /api/status", &format!("{proxied}{}", client.headers()), "").is(200);
        }
    });
}

/// It is often printed; and who has chosen the token has it.
#[test]
fn a_token_of_ones_own_is_not_in_the_url() {
    on_two_threads(async {
        let serve = Serve::at("127.0.0.1:0").token(Secret::new(TOKEN));
        let running = numbers("url").serve(serve).start().await.unwrap();
        let served = running.served().unwrap();
        assert_eq!(served.url(), format!("http://{}/", served.address()));
        running.handle().stop();
        running.wait().await.unwrap();
    });
}

/// There are no files behind paths, so none of them leads to one.
#[test]
fn no_path_leads_out() {
    asked("127.0.0.1:0", |client| {
        let up = [
            "..",
            "../..",
            "../Cargo.toml",
            "../../../../../../etc/passwd",
            "%2e%2e",
            "%2e%2e/%2e%2e/etc/passwd",
            "%2e%2e%2fetc%2fpasswd",
            "..%2f..%2fetc/passwd",
            "..\\..\\etc\\passwd",
            "..%5c..%5cetc%5cpasswd",
            "%252e%252e%252fetc%252fpasswd",
            "/etc/passwd",
            "//etc/passwd",
            "%2fetc%2fpasswd",
            "page.css/../page.js",
            "./page.css",
            "page.css%00",
            "page.css%00.js",
            "%00",
            "page.css/",
            "page.css;x",
            "PAGE.CSS",
            "page%2ecss",
            "....//....//etc/passwd",
            "..;/etc/passwd",
            "%c0%ae%c0%ae/etc/passwd",
            "%ff",
            "file:///etc/passwd",
            "index.html",
            "mod.rs",
        ];
        for path in up {
            for folder in ["/assets/", "/", "/api/", "/assets/../"] {
                let answer = client.get(&format!("{folder}{path}")).is(404);
                assert!(!answer.body.contains("root:"), "{answer:?}");
            }
            // The name of an operator: without SQL it is not even looked for. A name that is not text is nothing.
            let status = client.request(&format!("GET /state/{path}?sql=select"), &client.headers(), "").status;
            assert!([404, 501].contains(&status), "{path}: {status}");
        }
        // What is not a request at all.
        for line in ["GET  /api/status", "GET /assets/\0", "GET /a b", "GET"] {
            let answer = client.raw(format!("{line} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
            assert!(answer.is_none_or(|answer| answer.status == 400), "{line}");
        }
        client.get("/assets/page.css?v=1").is(200);
    });
}

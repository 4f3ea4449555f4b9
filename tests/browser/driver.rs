//! A real browser, driven as a person would: Debian's chromium without a screen, by its driver, which speaks WebDriver.
//!
//! ```text
//!   test ── HTTP, JSON ──► chromedriver ──► chromium ──► http://127.0.0.1:PORT/, the page of a job
//!                                │
//!                                └─► what the console said, and every request: checked by `Browser::finish`
//! ```
//!
//! `engine/tests/page_in_sql.rs` has it too. WebDriver is a dozen paths with JSON, so the HTTP client that the workspace has is all it takes. Clients of it that there are bring the
//! crate `webdriver`, whose licence is not one of those that `deny.toml` allows, or hundreds of thousands of generated lines.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;
use windrow::prelude::millis;

use super::{TOO_LONG, skip};

/// How often it is looked whether what is waited for is there.
const LOOK: std::time::Duration = millis(20);
/// By what Debian and others call them.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one window. Dropped, it is killed, with everything that it wrote.
pub(crate) struct Browser {
    driver: Child,
    http: ureq::Agent,
    /// Of the driver, with the session.
    url: String,
    /// What it shows is put here, before that goes away.
    screenshots: TempDir,
    _home: TempDir,
    name: String,
}

fn found(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl Browser {
    /// A browser for a test of this name. None: skip the test, it has been said why.
    pub(crate) fn start(name: &str) -> Option<Self> {
        let Some((chromium, driver)) = CHROMIUM.iter().find_map(|name| found(name)).zip(found("chromedriver")) else {
            return skip(
                "no chromium, or no chromedriver to drive it (Debian: apt-get install chromium chromium-driver)",
            );
        };
        let home = tempfile::tempdir().unwrap();
        // What it keeps besides its profile (fonts, crash reports) must not lie in the home of whoever runs the test.
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env("XDG_CACHE_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.find_map(|line| {
            let line = line.unwrap();
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says on which port it listens");
        // It goes on writing, and must not be stopped by a full pipe.
        std::thread::spawn(move || said.for_each(drop));
        let http =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TOO_LONG)).build().into();
        let screenshots = tempfile::tempdir().unwrap();
        let url = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, http, url, screenshots, _home: home, name: name.into() };
        let profile = browser._home.path().join("profile");
        let arguments = json!([
            "--headless=new",
            // As root there is no sandbox, and in a container hardly any shared memory.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--window-size=1400,1000",
            format!("--user-data-dir={}", profile.display()),
        ]);
        let session = browser.call(
            "POST",
            "",
            &json!({ "capabilities": { "alwaysMatch": {
                "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
                "goog:chromeOptions": { "binary": chromium, "args": arguments },
            }}}),
        );
        browser.url = format!("{}/{}", browser.url, session["sessionId"].as_str().unwrap());
        // What it opens by itself, a page of its own, is no concern of ours.
        browser.open("about:blank");
        browser.log("performance");
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path} {body}: {error}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.url);
        let answer = match method {
            "POST" => self.http.post(url).content_type("application/json").send(body.to_string()),
            "DELETE" => self.http.delete(url).call(),
            _ => self.http.get(url).call(),
        };
        let mut answer = answer.map_err(|error| error.to_string())?;
        let text =
            answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|error| error.to_string())?;
        let mut said: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer.status().is_success() { Ok(said["value"].take()) } else { Err(text) }
    }

    /// Opens an address, and waits until it is there.
    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({ "url": url }));
    }

    /// What a function of this body returns in the page.
    pub(crate) fn script(&self, body: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The texts of all elements of a selector that can be seen, as a person sees them.
    pub(crate) fn texts(&self, selector: &str) -> Vec<String> {
        let found = self.call(
            "POST",
            "/execute/sync",
            &json!({
                "script": "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility()).map((one) => one.innerText)",
                "args": [selector],
            }),
        );
        found.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    }

    /// Waits until some element of the selector is seen and has these words, and gives its text.
    #[track_caller]
    pub(crate) fn reads(&self, selector: &str, words: &str) -> String {
        let mut seen = Vec::new();
        let found = self.waits(|| {
            seen = self.texts(selector);
            seen.iter().find(|text| text.contains(words)).cloned()
        });
        found.unwrap_or_else(|| panic!("{selector} does not say {words:?}, but {seen:?}"))
    }

    /// Waits until something is there.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.waits(look).unwrap_or_else(|| panic!("in vain waited: {what}"))
    }

    fn waits<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let begun = Instant::now();
        loop {
            let found = look();
            if found.is_some() || begun.elapsed() > TOO_LONG / 2 {
                return found;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Clicks on an element that can be seen, as a mouse does: not through what covers it.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Writes into a field in place of what is there.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.call("POST", &format!("/element/{element}/clear"), &json!({}));
        self.call("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.call("POST", "/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().unwrap().values().next().unwrap();
        id.as_str().unwrap().to_string()
    }

    /// Presses a key of the keyboard, wherever the focus is.
    pub(crate) fn press(&self, key: char) {
        let actions = ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.call("POST", "/actions", &json!({ "actions": [keyboard] }));
    }

    /// How the person has set up their machine: dark or light.
    pub(crate) fn prefers(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// How large the window is.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.call("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// Keeps what the window shows: in the directory that `WINDROW_SCREENSHOTS` names, and when the test fails under `target/browser`.
    pub(crate) fn screenshot(&self, name: &str) {
        let png = self.call("GET", "/screenshot", &Value::Null);
        let bytes = decoded(png.as_str().unwrap());
        assert!(bytes.starts_with(b"\x89PNG"));
        let file = self.screenshots.path().join(format!("{}-{name}.png", self.name));
        fs::write(file, bytes).unwrap();
    }

    /// What the browser has noted since the last time.
    fn log(&self, kind: &str) -> Vec<Value> {
        match self.call("POST", "/se/log", &json!({ "type": kind })) {
            Value::Array(entries) => entries,
            other => panic!("{other}"),
        }
    }

    /// Looks at what the browser has complained of since the last time: that nothing went wrong in the page, and no policy was violated.
    /// `expected` are parts of complaints that belong to what the test has done since then.
    #[track_caller]
    pub(crate) fn complains_only_of(&self, expected: &[&str]) {
        let complaints = self.log("browser").into_iter().map(|entry| entry["message"].as_str().unwrap().to_string());
        let complaints: Vec<String> =
            complaints.filter(|said| !expected.iter().any(|words| said.contains(words))).collect();
        assert_eq!(complaints, Vec::<String>::new(), "the console of the browser");
    }

    /// The same at the end, and that no request went to another host than `hosts`.
    #[track_caller]
    pub(crate) fn finish(self, hosts: &[String], expected: &[&str]) {
        self.complains_only_of(expected);
        let mut asked = 0;
        for entry in self.log("performance") {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let event = &event["message"];
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                assert!(hosts.iter().any(|host| url.starts_with(&format!("http://{host}/"))), "a request to {url}");
                assert!(!url.contains("token="), "the token is in {url}");
                asked += 1;
            }
        }
        assert!(asked > 0, "every request is noted");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            if let Ok(Value::String(png)) = self.try_call("GET", "/screenshot", &Value::Null) {
                let file = self.screenshots.path().join(format!("{}-at-the-end.png", self.name));
                let _ = fs::write(file, decoded(&png));
            }
            keep(self.screenshots.path(), &Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/browser"));
        }
        if let Some(folder) = env::var_os("WINDROW_SCREENSHOTS") {
            keep(self.screenshots.path(), Path::new(&folder));
        }
        // This ends chromium cleanly. If it did not: its processes are of the group of the driver, which is ours alone.
        let _ = self.try_call("DELETE", "", &Value::Null);
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.driver.id())]).status();
        let _ = self.driver.wait();
    }
}

fn keep(from: &Path, to: &Path) {
    let copied = fs::create_dir_all(to).and_then(|()| {
        for file in fs::read_dir(from)? {
            let file = file?;
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
        Ok(())
    });
    match copied {
        Ok(()) => println!("screenshots are in {}", to.display()),
        Err(error) => println!("screenshots could not be kept in {}: {error}", to.display()),
    }
}

/// A picture, as WebDriver sends it.
fn decoded(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap()
}

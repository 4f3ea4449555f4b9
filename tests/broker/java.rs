//! Records by Java's own producer, whose default partitioner is what everybody else's keys have to agree with.
//!
//! ```text
//! Broker::produce_by_java(topic, keys and values) ──> java … ConsoleProducer < lines of key ⇥ value
//! ```

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::{Broker, Result, jars::Jars};

/// Stands for a key that is not there.
const NULL: &str = "~null~";

impl Broker {
    /// Produces records with keys of text, or without, by Kafka's console producer: its settings, and so its partitioner, are the
    /// defaults of Java. `None` where there is no Java, which is only so when the broker is not ours.
    ///
    /// # Errors
    ///
    /// When the producer fails, or the jars cannot be fetched.
    pub fn produce_by_java(&self, topic: &str, records: &[(Option<&str>, String)]) -> Result<Option<()>> {
        let Some(jars) = Jars::get()? else { return Ok(None) };
        let mut words = vec!["120".to_string()];
        words.extend(jars.java("org.apache.kafka.tools.ConsoleProducer", 128, false));
        words.extend(["--bootstrap-server", self.address(), "--topic", topic].map(String::from));
        for property in ["parse.key=true", &format!("null.marker={NULL}")] {
            words.extend(["--property".to_string(), property.to_string()]);
        }
        let mut process = Command::new("timeout");
        process.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = process.spawn()?;
        let lines: String = records.iter().map(|(key, value)| format!("{}\t{value}\n", key.unwrap_or(NULL))).collect();
        child.stdin.take().ok_or("no input")?.write_all(lines.as_bytes())?;
        let output = child.wait_with_output()?;
        // It says of a record that was refused, and ends well.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() || said.contains("ERROR") {
            return Err(format!("the console producer ended with {}, and said:\n{said}", output.status).into());
        }
        Ok(Some(()))
    }
}

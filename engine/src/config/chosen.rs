//! What a job is told of itself: by its code, and then by its configuration.

use std::{path::PathBuf, time::Duration};

use crate::{Restarts, Restore, checkpoint::Settings};

/// How many bytes wait between two tasks at the most, unless told.
pub(super) const CHANNEL_BYTES: usize = 2 << 20;

/// The knobs of a job, as far as somebody has turned them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) parallelism: Option<usize>,
    pub(crate) channel_bytes: Option<usize>,
    pub(crate) memory_budget: Option<usize>,
    pub(crate) spill_to: Option<PathBuf>,
    pub(crate) checkpoint_url: Option<String>,
    pub(crate) checkpoint_every: Option<Duration>,
    pub(crate) checkpoint_timeout: Option<Duration>,
    pub(crate) checkpoint_keep: Option<usize>,
    pub(crate) restarts_at_most: Option<u32>,
    pub(crate) restarts_first_wait: Option<Duration>,
    pub(crate) restarts_longest_wait: Option<Duration>,
    pub(crate) savepoint: Option<String>,
    pub(crate) repeat_output: Option<bool>,
    pub(crate) drop_state: Option<bool>,
    pub(crate) serve_address: Option<String>,
    pub(crate) serve_token_file: Option<PathBuf>,
    pub(crate) serve_token_env: Option<String>,
    pub(crate) serve_host: Option<String>,
}

impl Chosen {
    pub(crate) fn restarts_are(&mut self, restarts: Restarts) {
        self.restarts_at_most = Some(restarts.limit);
        self.restarts_first_wait = Some(*restarts.wait.start());
        self.restarts_longest_wait = Some(*restarts.wait.end());
    }

    pub(crate) fn restore_is(&mut self, from: Restore) {
        self.savepoint = from.savepoint;
        self.repeat_output = Some(from.repeat_output);
    }

    pub(crate) fn parallelism(&self) -> usize {
        self.parallelism.unwrap_or(1)
    }

    pub(crate) fn channel_bytes(&self) -> usize {
        self.channel_bytes.unwrap_or(CHANNEL_BYTES)
    }

    pub(crate) fn restarts(&self) -> Restarts {
        let unless_told = Restarts::default();
        let first = self.restarts_first_wait.unwrap_or(*unless_told.wait.start());
        let longest = self.restarts_longest_wait.unwrap_or(*unless_told.wait.end());
        Restarts::at_most(self.restarts_at_most.unwrap_or(unless_told.limit)).waiting(first..=longest)
    }

    pub(crate) fn restore(&self) -> Restore {
        Restore { savepoint: self.savepoint.clone(), repeat_output: self.repeat_output.unwrap_or(false) }
    }

    pub(crate) fn drops_state(&self) -> bool {
        self.drop_state.unwrap_or(false)
    }

    /// The token of whoever asks the job over HTTP.
    #[cfg(feature = "serve")]
    pub(crate) fn serve_token(&self) -> Option<windrow_connectors::Secret> {
        let file = self.serve_token_file.as_ref().map(windrow_connectors::Secret::file);
        file.or_else(|| self.serve_token_env.as_ref().map(windrow_connectors::Secret::env))
    }

    /// What cannot be of what is said of waiting between restarts.
    pub(crate) fn restarts_mistake(&self) -> Option<String> {
        let unless_told = Restarts::default();
        let first = self.restarts_first_wait.unwrap_or(*unless_told.wait.start());
        let longest = self.restarts_longest_wait.unwrap_or(*unless_told.wait.end());
        let said = |wait| humantime::format_duration(wait);
        (first > longest).then(|| {
            format!(
                "the first wait before a restart, {}, is longer than the longest, {}: set restarts.longest_wait too",
                said(first),
                said(longest)
            )
        })
    }

    /// What cannot be of what is said of serving the job.
    pub(crate) fn serve_mistake(&self) -> Option<String> {
        (self.serve_address.is_some() && !cfg!(feature = "serve")).then(|| {
            "serve.address is configured, and this program cannot be served: switch on the feature `serve` of the crate `windrow`".into()
        })
    }

    /// How checkpoints are taken; `None` without them. The error is a mistake of the user.
    pub(crate) fn settings(&self) -> Result<Option<Settings>, String> {
        match (&self.checkpoint_url, self.checkpoint_every) {
            (Some(url), Some(every)) => {
                let settings = Settings::new(url.clone(), every);
                let keep = self.checkpoint_keep.unwrap_or(settings.keep);
                Ok(Some(Settings { keep, restore: self.restore(), drop_state: self.drops_state(), ..settings }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err("it is configured where its checkpoints go, but not how often they are taken: set \
                                    checkpoint.every = \"10s\", or WINDROW_CHECKPOINT_EVERY=10s"
                .into()),
            (None, Some(_)) => Err("it is configured how often checkpoints are taken, but not where they go: set \
                                    checkpoint.url = \"/var/lib/jobs\", or WINDROW_CHECKPOINT_URL=/var/lib/jobs"
                .into()),
        }
    }
}

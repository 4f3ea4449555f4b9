//! Why an operator cannot go on. A row that comes too late or does not decode is never an error: it is a row elsewhere.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;

/// The result of an operator's call.
pub type Result<T, E = OperatorError> = std::result::Result<T, E>;

/// Why an operator cannot be built or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The operator was described in a way that cannot work: change the pipeline.
    #[error("{0}")]
    Plan(String),
    /// An expression or an aggregate failed: on its types when the job starts, or on a value while it runs.
    // Boxed because DataFusion's error is large and results travel through every call.
    #[error("{0}")]
    Expression(Box<DataFusionError>),
    /// Arrow refused to build a batch.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// What one key has, or one value, is too large for a column of Arrow. The message says what to do.
    #[error("{0}")]
    TooLarge(String),
    /// State that is too much for memory could not be put elsewhere, or not be got back. The message says where and what to do.
    #[error("{0}")]
    Spill(String),
    /// The state is more than the job's memory budget allows, and of a kind that stays in memory. The message says what to do.
    #[error("{0}")]
    OverBudget(String),
    /// The operator broke its own contract: a bug in it, not in the data.
    #[error("internal: {0}")]
    Internal(String),
}

impl OperatorError {
    /// Whether it would go with less at once.
    pub(crate) fn is_too_large(&self) -> bool {
        let overflows = |error: &ArrowError| matches!(error, ArrowError::OffsetOverflowError(_));
        match self {
            Self::TooLarge(_) => true,
            Self::Arrow(error) => overflows(error),
            Self::Expression(error) => {
                matches!(error.as_ref(), DataFusionError::ArrowError(error, _) if overflows(error))
            }
            _ => false,
        }
    }

    /// What DataFusion says of an expression, with the expression it says it of.
    pub(crate) fn about(expr: impl std::fmt::Display) -> impl FnOnce(DataFusionError) -> Self {
        // Its messages may run over many lines and repeat themselves; the first sentence says what is wrong.
        move |error| {
            let text = error.strip_backtrace();
            let first = text.split(", errors:").next().unwrap_or_default();
            Self::Plan(format!("{expr}: {}", first.replace('\n', " ")))
        }
    }
}

impl From<DataFusionError> for OperatorError {
    fn from(error: DataFusionError) -> Self {
        Self::Expression(Box::new(error))
    }
}

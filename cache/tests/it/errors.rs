//! Errors say what happened once, and to whom.

use std::error::Error;
use std::sync::Arc;

use escala_cache::{LoadError, StoreError};

#[test]
fn a_load_error_leads_to_its_source_without_repeating_it() {
    let error = LoadError::Source(Arc::new(std::fmt::Error));
    assert_eq!(error.to_string(), "the source failed");
    assert!(error.source().unwrap().is::<std::fmt::Error>());
    assert!(!error.is_timeout() && !error.is_panic() && !error.is_retryable());
    assert!(LoadError::<std::fmt::Error>::TimedOut.is_retryable());
    assert!(LoadError::<std::fmt::Error>::TimedOut.source().is_none());
}

#[test]
fn a_store_error_keeps_its_cause() {
    let error = StoreError::failed("broken pipe");
    assert_eq!(error.to_string(), "the shared store failed");
    assert_eq!(error.source().unwrap().to_string(), "broken pipe");
    assert!(StoreError::TimedOut.is_timeout());
}

#[test]
fn an_error_that_cannot_be_cloned_still_reaches_many() {
    struct NotClone;
    let error = LoadError::Source(Arc::new(NotClone));
    assert!(matches!(error.clone(), LoadError::Source(_)));
}

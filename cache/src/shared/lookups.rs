//! Reads of the shared store. (To be replaced by the batching form.)

use std::sync::Arc;

use super::SharedStore;
use crate::error::StoreError;

pub(crate) struct Lookups {
    store: Arc<dyn SharedStore>,
    control: String,
}

pub(crate) struct Answer {
    pub(crate) control: Option<Vec<u8>>,
    pub(crate) values: Vec<Option<Vec<u8>>>,
}

impl Lookups {
    pub(crate) fn new(store: Arc<dyn SharedStore>, control: String) -> Self {
        Self { store, control }
    }

    pub(crate) async fn get(&self, mut keys: Vec<String>) -> Result<Answer, StoreError> {
        keys.push(self.control.clone());
        let mut values = self.store.get_many(&keys).await?;
        let control = values.pop().flatten();
        Ok(Answer { control, values })
    }
}

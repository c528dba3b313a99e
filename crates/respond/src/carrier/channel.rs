//! The carrier for one process: straight into the responder's queue.
//! Invariant: adds no queue of its own.

use std::sync::Arc;

use tld_model::Order;

use super::{Carrier, DeliverError};
use crate::{Refused, Responder};

/// See the module.
#[derive(Debug, Clone)]
pub struct ChannelCarrier {
    responder: Arc<Responder>,
}

impl ChannelCarrier {
    /// The way to `responder`.
    pub fn new(responder: Arc<Responder>) -> Self {
        Self { responder }
    }
}

impl Carrier for ChannelCarrier {
    fn deliver(&self, order: &Order) -> Result<(), DeliverError> {
        self.responder.submit(order.clone()).map_err(|refused| match refused {
            Refused::Full => DeliverError::Full,
            Refused::Stopped => DeliverError::Gone,
        })
    }
}

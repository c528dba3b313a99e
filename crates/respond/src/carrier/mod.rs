//! How orders reach the responder: within the process, or over a socket from the unprivileged half of the product.
//! Invariant: delivering never waits; a full responder is an answer, not a pause.

pub mod channel;
#[cfg(unix)]
pub mod socket;

use tld_model::Order;

/// The order was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The responder has more orders than it can hold; try again later.
    #[error("the responder's queue is full")]
    Full,
    /// It is gone.
    #[error("the responder is gone")]
    Gone,
    /// The order has more bytes than a message may have.
    #[error("the order has {0} bytes, more than a message may have")]
    TooLong(usize),
    /// The order cannot be written as JSON.
    #[error("the order cannot be encoded")]
    Encode(#[from] serde_json::Error),
    /// The socket failed.
    #[error("the responder's socket failed")]
    Socket(#[from] std::io::Error),
}

/// A way to the responder.
pub trait Carrier: Send {
    /// Hands an order over.
    ///
    /// # Errors
    /// When the order was not taken; it may be delivered again, since its id makes that harmless.
    fn deliver(&self, order: &Order) -> Result<(), DeliverError>;
}

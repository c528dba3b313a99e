//! Noticing what others do to the firewall.
//!
//! Invariant: nothing is lost silently: if the kernel dropped notifications, [`Event::Overrun`] says so.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::message::{
    self, CHAIN_TABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM, DELTABLE, GEN_PROCESS, GEN_PROCESS_NAME,
    LIST_SET, LIST_TABLE, NEWGEN, RULE_TABLE, SET_NAME, SET_TABLE, TABLE_NAME,
};
use super::{Event, NftError};
use crate::netlink::{Message, Socket, attribute, messages, text};

/// Group 7 of the netfilter subsystem: changes of nf_tables.
const GROUP: u32 = 1 << (7 - 1);

/// A listener for changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    ignored: Vec<u32>,
    queue: VecDeque<Event>,
}

impl Monitor {
    /// Listens from now on. Changes made over the connections with the port ids `own` are not reported.
    pub fn open(own: &[u32]) -> Result<Self, NftError> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER), GROUP)?;
        socket.grow_receive_buffer(8 << 20);
        Ok(Self { socket, ignored: own.to_vec(), queue: VecDeque::new() })
    }

    #[cfg(test)]
    pub(super) fn shrink_for_test(&self) {
        self.socket.grow_receive_buffer(4096);
    }

    /// The next event, or `None` at the timeout.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>, NftError> {
        let deadline = crate::clock::Deadline::after(timeout);
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.receive(deadline.remaining().unwrap_or(timeout)) {
                Ok(None) => return Ok(None),
                Ok(Some(datagram)) => {
                    for message in messages(datagram).filter(|m| !self.ignored.contains(&m.port)) {
                        translate(message, &mut self.queue);
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Event::Overrun)),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn translate(message: Message<'_>, queue: &mut VecDeque<Event>) {
    let Some(kind) = message::kind(message.kind) else { return };
    let body = message.body;
    let table = |kind| message::table_of(body, kind);
    let name = |kind| attribute(message::payload(body), kind).map(text).unwrap_or_default();
    let event = match kind {
        DELTABLE => table(TABLE_NAME).map(Event::TableGone),
        DELSET => table(SET_TABLE).map(|table| Event::SetGone { table, set: name(SET_NAME) }),
        DELCHAIN => table(CHAIN_TABLE).map(Event::RulesGone),
        DELRULE => table(RULE_TABLE).map(Event::RulesGone),
        DELSETELEM => {
            let Some(table) = table(LIST_TABLE) else { return };
            let set = name(LIST_SET);
            queue.extend(message::elements(body).map(|(spot, _)| Event::ElementGone {
                table: table.clone(),
                set: set.clone(),
                spot,
            }));
            return;
        }
        NEWGEN => {
            let payload = message::payload(body);
            let pid =
                attribute(payload, GEN_PROCESS).and_then(|v| Some(u32::from_be_bytes(v.try_into().ok()?)));
            let process = attribute(payload, GEN_PROCESS_NAME).map(text);
            Some(Event::Committed { pid, process })
        }
        _ => Some(Event::Other),
    };
    queue.push_back(event.unwrap_or(Event::Other));
}

//! The firewall where there is no nf_tables: every call says so.
//!
//! Invariant: no [`Firewall`] and no [`Monitor`] ever exists here.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use super::{Element, Event, Net, NftError, Spot};

type Result<T> = std::result::Result<T, NftError>;

/// Cannot be made on this system.
#[derive(Debug)]
pub struct Firewall(Infallible);

/// Cannot be made on this system.
#[derive(Debug)]
pub struct Monitor(Infallible);

#[expect(missing_docs, reason = "documented where they work")]
impl Firewall {
    pub fn open() -> Result<Self> {
        Err(NftError::Missing)
    }

    #[must_use]
    pub fn port_id(&self) -> u32 {
        match self.0 {}
    }

    pub fn ensure(&mut self, _table: &str) -> Result<()> {
        match self.0 {}
    }

    pub fn exists(&mut self, _table: &str) -> Result<bool> {
        match self.0 {}
    }

    pub fn block(&mut self, _table: &str, _entries: &[(IpAddr, Option<Duration>)]) -> Result<()> {
        match self.0 {}
    }

    pub fn block_spots(&mut self, _table: &str, _entries: &[(Spot, Option<Duration>)]) -> Result<()> {
        match self.0 {}
    }

    pub fn block_nets(&mut self, _table: &str, _entries: &[(Net, Option<Duration>)]) -> Result<()> {
        match self.0 {}
    }

    pub fn block_new(&mut self, _table: &str, _entries: &[(Spot, Option<Duration>)]) -> Result<()> {
        match self.0 {}
    }

    pub fn unblock(&mut self, _table: &str, _addresses: &[IpAddr]) -> Result<()> {
        match self.0 {}
    }

    pub fn unblock_spots(&mut self, _table: &str, _spots: &[Spot]) -> Result<()> {
        match self.0 {}
    }

    pub fn unblock_nets(&mut self, _table: &str, _nets: &[Net]) -> Result<()> {
        match self.0 {}
    }

    pub fn lookup(&mut self, _table: &str, _address: IpAddr) -> Result<Option<Element>> {
        match self.0 {}
    }

    pub fn lookup_all(&mut self, _table: &str, _spots: &[Spot]) -> Result<Vec<Option<Element>>> {
        match self.0 {}
    }

    pub fn list(&mut self, _table: &str) -> Result<Vec<(IpAddr, Option<Duration>)>> {
        match self.0 {}
    }

    pub fn list_spots(&mut self, _table: &str) -> Result<Vec<(Spot, Option<Duration>)>> {
        match self.0 {}
    }

    pub fn delete_table(&mut self, _table: &str) -> Result<()> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "documented where they work")]
impl Monitor {
    pub fn open(_own: &[u32]) -> Result<Self> {
        Err(NftError::Missing)
    }

    pub fn next(&mut self, _timeout: Duration) -> Result<Option<Event>> {
        match self.0 {}
    }
}

//! trix-storage from outside: shares, fixity, cache and publication on real folders.

mod cache;
mod common;
mod faults;
mod fixity;
mod processes;
mod publish;
mod settle;
mod share;
mod sshfs;

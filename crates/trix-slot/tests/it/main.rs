//! A real slot process with a toy in it, launched as a worker launches it.

mod attempts;
mod crash;
mod groups;
mod lacking;
mod life;
mod sandbox;
mod support;

//! Policies as revisions: both ways in, their gates, and what another set would have said.

mod again;
mod desk;
mod load;
mod ways;

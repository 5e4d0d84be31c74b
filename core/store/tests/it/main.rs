//! The store on a real PostgreSQL. `cfg(test)` only tells the lints that helpers here are tests, too.

#[cfg(test)]
mod containers;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod images;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod things;
#[cfg(test)]
mod vchs;
#[cfg(test)]
mod volumes;

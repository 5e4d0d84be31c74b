//! Networks, the places of containers on them, and the addresses and ports that those hold while they run.
//!
//! What is free is decided under the VCH's lock, ports of the host under a lock on their table: two starts at a time
//! never get the same.

use crate::error::StoreError;
use crate::row::{Row, to_json, to_micros};
use crate::servers::{self, Fence};
use crate::transaction::work;
use crate::{Record, Store, vchs};
use bulkhead_model::event::Event;
use bulkhead_model::ipv6::{Lease6, Pool6};
use bulkhead_model::network::{Lease, MacAddress};
use bulkhead_model::ports::{PortWish, Protocol};
use bulkhead_model::{ContainerId, Endpoint, Network, NetworkId, Published, VchId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// Networks of one VCH.
const NETWORKS_MAX: u64 = 1000;

/// What is to hold on all networks: whoever has an address, and which port leads where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    pub networks: Vec<Network>,
    /// With a lease.
    pub endpoints: Vec<Endpoint>,
    pub published: Vec<(ContainerId, Published)>,
    /// Of the containers with an address.
    pub names: BTreeMap<ContainerId, String>,
}

impl Store {
    /// For VCHs of before there were networks. Fine if it is there.
    pub async fn ensure_default_network(&self, network: &Network) -> Result<(), StoreError> {
        let insert = work!(|tx| { insert_network(tx, network).await });
        self.write(None, &Record::at(network.created_at), insert).await?;
        Ok(())
    }

    /// A new network, if its name is free and its subnet nobody else's in the VCH; [`StoreError::Conflict`] where the
    /// subnet is another's by now.
    pub async fn create_network(&self, network: &Network, record: &Record) -> Result<Vec<Event>, StoreError> {
        let create = work!(|tx| {
            vchs::lock(tx, network.vch).await?.check_stays()?;
            let there = networks_of(tx, network.vch).await?;
            if let Some(other) = there.iter().find(|other| other.name == network.name) {
                return Err(StoreError::NameTaken {
                    kind: "network",
                    name: network.name.clone(),
                    holder: other.id.to_string(),
                });
            }
            let overlaps = |other: &Network| {
                let six = other.spec.six.as_ref().zip(network.spec.six.as_ref());
                other.spec.subnet.overlaps(network.spec.subnet)
                    || six.is_some_and(|(one, new)| one.subnet.overlaps(new.subnet))
            };
            if there.iter().any(overlaps) {
                return Err(StoreError::Conflict { kind: "network", id: network.spec.subnet.to_string() });
            }
            let used = u64::try_from(there.len()).unwrap_or(u64::MAX);
            if used >= NETWORKS_MAX {
                let (name, unit) = ("networks_max", "networks");
                return Err(StoreError::Limit { name, unit, limit: NETWORKS_MAX, used, requested: 1 });
            }
            insert_network(tx, network).await
        });
        Ok(self.write(Some(network.vch), record, create).await?.1)
    }

    /// The networks of a VCH, by name.
    pub async fn networks(&self, vch: VchId) -> Result<Vec<Network>, StoreError> {
        self.read("networks", async {
            let mut connection = self.pool.acquire().await?;
            networks_of(&mut connection, vch).await
        })
        .await
    }

    /// Deletes a network on which no container runs; [`StoreError::NetworkInUse`] if one does.
    pub async fn delete_network(
        &self,
        vch: VchId,
        id: &NetworkId,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let delete = work!(|tx| {
            vchs::lock(tx, vch).await?;
            let active: i64 = sqlx::query_scalar(
                "select count(*) from endpoints where vch_id = $1 and network_id = $2 and address is not null",
            )
            .bind(vch.0)
            .bind(id.as_str())
            .fetch_one(&mut *tx)
            .await?;
            if active > 0 {
                return Err(StoreError::NetworkInUse { id: id.clone(), containers: active });
            }
            let done = sqlx::query("delete from networks where vch_id = $1 and id = $2")
                .bind(vch.0)
                .bind(id.as_str())
                .execute(tx)
                .await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("network", id)) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, delete).await?.1)
    }

    /// One more place for a container. [`StoreError::Conflict`] if it has one on that network.
    pub async fn add_endpoint(
        &self,
        vch: VchId,
        endpoint: &Endpoint,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let add = work!(|tx| {
            vchs::lock(tx, vch).await?.check_stays()?;
            network_of(tx, vch, &endpoint.network).await?;
            insert_endpoint(tx, vch, endpoint).await
        });
        match self.write(Some(vch), record, add).await {
            Err(error) if error.constraint() == Some("endpoints_once") => {
                Err(StoreError::Conflict { kind: "endpoint", id: endpoint.id.to_string() })
            }
            other => Ok(other?.1),
        }
    }

    /// Takes a place away, with its address. Whether there was one.
    pub async fn remove_endpoint(
        &self,
        vch: VchId,
        container: &ContainerId,
        network: &NetworkId,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let remove = work!(|tx| {
            let done = sqlx::query(
                "delete from endpoints where vch_id = $1 and container_id = $2 and network_id = $3",
            )
            .bind(vch.0)
            .bind(container.as_str())
            .bind(network.as_str())
            .execute(tx)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("endpoint", network)) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, remove).await?.1)
    }

    /// Gives every place of a container an address, and every wish for a port a port of the host; what it has already,
    /// it keeps. `avoid`: ports that something else on the host uses.
    pub async fn lease(
        &self,
        fence: Fence,
        vch: VchId,
        container: &ContainerId,
        wishes: &[PortWish],
        avoid: &BTreeSet<(Protocol, u16)>,
    ) -> Result<(), StoreError> {
        let lease = work!(|tx| {
            let locked = vchs::lock(tx, vch).await?;
            servers::hold(tx, fence).await?;
            lease_addresses(tx, vch, container).await?;
            if wishes.is_empty() || has_ports(tx, container).await? {
                return Ok(());
            }
            sqlx::query("lock table published_ports in share row exclusive mode").execute(&mut *tx).await?;
            let rows = sqlx::query("select * from published_ports where server_id = $1")
                .bind(fence.server.0)
                .fetch_all(&mut *tx)
                .await?;
            let taken = rows.iter().map(published).collect::<Result<Vec<_>, _>>()?;
            let inside = rows.iter().zip(&taken).filter(|(row, _)| {
                Row::new(row, "published_ports", "container_id").vch("vch_id").is_ok_and(|of| of == vch)
            });
            let inside = inside.map(|(_, one)| (one.protocol, one.inner_port)).collect();
            let six = leads_out_by_six(tx, container).await?;
            let granted = locked.settings.publish.grant(wishes, six, &taken, &inside, avoid)?;
            for one in granted {
                insert_published(tx, fence, vch, container, &one).await?;
            }
            Ok(())
        });
        self.write(None, &Record::at(chrono::DateTime::UNIX_EPOCH), lease).await?;
        Ok(())
    }

    /// Gives the addresses and ports of a container back.
    pub async fn release(&self, fence: Fence, container: &ContainerId) -> Result<(), StoreError> {
        let release = work!(|tx| {
            servers::hold(tx, fence).await?;
            give_back(tx, container).await
        });
        self.write(None, &Record::at(chrono::DateTime::UNIX_EPOCH), release).await?;
        Ok(())
    }

    /// Of all VCHs together.
    pub async fn network_facts(&self) -> Result<NetworkFacts, StoreError> {
        self.read("networks", async {
            // One look at all three: a change in between would let a port lead to nobody.
            let mut tx = self.pool.begin().await?;
            sqlx::query("set transaction isolation level repeatable read").execute(&mut *tx).await?;
            let networks = sqlx::query("select * from networks order by id").fetch_all(&mut *tx).await?;
            let endpoints = sqlx::query("select * from endpoints where lease is not null order by id")
                .fetch_all(&mut *tx)
                .await?;
            let ports = sqlx::query("select * from published_ports").fetch_all(&mut *tx).await?;
            let named = sqlx::query(
                "select id, name from containers
                 where exists (select from endpoints where container_id = containers.id and lease is not null)",
            )
            .fetch_all(&mut *tx)
            .await?;
            let name = |row: &PgRow| {
                let row = Row::new(row, "containers", "id");
                Ok((row.parse("id")?, row.get("name")?))
            };
            let of = |row: &PgRow| Row::new(row, "published_ports", "container_id").parse("container_id");
            Ok(NetworkFacts {
                networks: networks.iter().map(decode).collect::<Result<_, _>>()?,
                endpoints: endpoints.iter().map(endpoint).collect::<Result<_, _>>()?,
                published: ports
                    .iter()
                    .map(|row| Ok((of(row)?, published(row)?)))
                    .collect::<Result<_, StoreError>>()?,
                names: named.iter().map(name).collect::<Result<_, StoreError>>()?,
            })
        })
        .await
    }
}

async fn networks_of(tx: &mut PgConnection, vch: VchId) -> Result<Vec<Network>, StoreError> {
    let rows = sqlx::query("select * from networks where vch_id = $1 order by name")
        .bind(vch.0)
        .fetch_all(tx)
        .await?;
    rows.iter().map(decode).collect()
}

async fn network_of(tx: &mut PgConnection, vch: VchId, id: &NetworkId) -> Result<Network, StoreError> {
    let row = sqlx::query("select * from networks where vch_id = $1 and id = $2")
        .bind(vch.0)
        .bind(id.as_str())
        .fetch_optional(tx)
        .await?;
    decode(&row.ok_or_else(|| StoreError::not_found("network", id))?)
}

pub(crate) async fn insert_network(tx: &mut PgConnection, network: &Network) -> Result<(), StoreError> {
    sqlx::query(
        "insert into networks (id, vch_id, name, spec, created_at) values ($1, $2, $3, $4::text::json, $5)
         on conflict (id) do nothing",
    )
    .bind(network.id.as_str())
    .bind(network.vch.0)
    .bind(&network.name)
    .bind(to_json(&network.spec)?)
    .bind(to_micros(network.created_at))
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_endpoint(
    tx: &mut PgConnection,
    vch: VchId,
    endpoint: &Endpoint,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into endpoints (id, vch_id, container_id, network_id, wish)
         values ($1, $2, $3, $4, $5::text::json)",
    )
    .bind(endpoint.id.as_str())
    .bind(vch.0)
    .bind(endpoint.container.as_str())
    .bind(endpoint.network.as_str())
    .bind(to_json(&endpoint.wish)?)
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_published(
    tx: &mut PgConnection,
    fence: Fence,
    vch: VchId,
    container: &ContainerId,
    one: &Published,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into published_ports
             (server_id, vch_id, container_id, protocol, host_address, host_port, inner_port, container_port)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(fence.server.0)
    .bind(vch.0)
    .bind(container.as_str())
    .bind(one.protocol.as_str())
    .bind(one.host_address.to_string())
    .bind(i32::from(one.host_port))
    .bind(i32::from(one.inner_port))
    .bind(i32::from(one.container_port))
    .execute(tx)
    .await?;
    Ok(())
}

async fn has_ports(tx: &mut PgConnection, container: &ContainerId) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar("select exists (select from published_ports where container_id = $1)");
    Ok(query.bind(container.as_str()).fetch_one(tx).await?)
}

async fn lease_addresses(
    tx: &mut PgConnection,
    vch: VchId,
    container: &ContainerId,
) -> Result<(), StoreError> {
    let rows = sqlx::query("select * from endpoints where container_id = $1 and lease is null order by id")
        .bind(container.as_str())
        .fetch_all(&mut *tx)
        .await?;
    for row in &rows {
        let endpoint = endpoint(row)?;
        let network = network_of(tx, vch, &endpoint.network).await?;
        let taken: Vec<String> =
            sqlx::query_scalar("select address from endpoints where network_id = $1 and address is not null")
                .bind(network.id.as_str())
                .fetch_all(&mut *tx)
                .await?;
        let taken: BTreeSet<_> = taken.iter().filter_map(|text| text.parse().ok()).collect();
        let address = network.address_for(endpoint.wish.address, &taken)?;
        let six = match &network.spec.six {
            Some(pool) => Some(lease_six(tx, &network, pool, endpoint.wish.address6).await?),
            None => None,
        };
        let lease = Lease {
            address,
            prefix: network.spec.subnet.prefix(),
            mac: endpoint.wish.mac.unwrap_or_else(|| MacAddress::of(address)),
            gateway: (!network.spec.internal).then_some(network.spec.gateway),
            six,
        };
        let set = sqlx::query(
            "update endpoints set lease = $2::text::json, address = $3, mac = $4, address6 = $5 where id = $1",
        )
        .bind(endpoint.id.as_str())
        .bind(to_json(&lease)?)
        .bind(address.to_string())
        .bind(lease.mac.to_string())
        .bind(six.map(|six| six.address.to_string()))
        .execute(&mut *tx)
        .await
        .map_err(StoreError::from);
        set.map_err(|error| match error.constraint() {
            Some("endpoints_mac_key") => StoreError::MacTaken { mac: lease.mac, network: network.name },
            _ => error,
        })?;
    }
    Ok(())
}

async fn lease_six(
    tx: &mut PgConnection,
    network: &Network,
    pool: &Pool6,
    wish: Option<Ipv6Addr>,
) -> Result<Lease6, StoreError> {
    let taken: Vec<String> =
        sqlx::query_scalar("select address6 from endpoints where network_id = $1 and address6 is not null")
            .bind(network.id.as_str())
            .fetch_all(tx)
            .await?;
    let taken = taken.iter().filter_map(|text| text.parse().ok()).collect();
    let address = pool.address_for(&network.name, wish, &taken)?;
    let gateway = (!network.spec.internal).then_some(pool.gateway);
    Ok(Lease6 { address, prefix: pool.subnet.prefix(), gateway })
}

/// Whether the way in to the container's ports has IPv6: it is the way out, on the network that comes first.
async fn leads_out_by_six(tx: &mut PgConnection, container: &ContainerId) -> Result<bool, StoreError> {
    let found: Option<bool> = sqlx::query_scalar(
        "select place.address6 is not null
         from endpoints as place join networks on networks.id = place.network_id
         where place.container_id = $1 and not (networks.spec->>'internal')::boolean
         order by -coalesce((place.wish->>'gateway_priority')::bigint, 0), networks.name limit 1",
    )
    .bind(container.as_str())
    .fetch_optional(tx)
    .await?;
    Ok(found.unwrap_or(false))
}

/// At the end of a run, in the transaction that records it.
pub(crate) async fn give_back(tx: &mut PgConnection, container: &ContainerId) -> Result<(), StoreError> {
    for query in [
        "update endpoints set lease = null, address = null, address6 = null, mac = null where container_id = $1",
        "delete from published_ports where container_id = $1",
    ] {
        sqlx::query(query).bind(container.as_str()).execute(&mut *tx).await?;
    }
    Ok(())
}

fn decode(row: &PgRow) -> Result<Network, StoreError> {
    let row = Row::new(row, "networks", "name");
    Ok(Network {
        id: row.parse("id")?,
        vch: row.vch("vch_id")?,
        name: row.get("name")?,
        spec: row.json("spec")?,
        created_at: row.get("created_at")?,
    })
}

fn endpoint(row: &PgRow) -> Result<Endpoint, StoreError> {
    let row = Row::new(row, "endpoints", "id");
    let lease: Option<sqlx::types::Json<Lease>> = row.get("lease")?;
    Ok(Endpoint {
        id: row.parse("id")?,
        container: row.parse("container_id")?,
        network: row.parse("network_id")?,
        wish: row.json("wish")?,
        lease: lease.map(|lease| lease.0),
    })
}

fn published(row: &PgRow) -> Result<Published, StoreError> {
    let row = Row::new(row, "published_ports", "container_id");
    let port = |column: &'static str| -> Result<u16, StoreError> {
        let number: i32 = row.get(column)?;
        u16::try_from(number).map_err(|error| row.corrupt(column, error.into()))
    };
    Ok(Published {
        container_port: port("container_port")?,
        protocol: row.parse("protocol")?,
        host_address: row.parse("host_address")?,
        host_port: port("host_port")?,
        inner_port: port("inner_port")?,
    })
}

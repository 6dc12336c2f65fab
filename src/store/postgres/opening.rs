//! How a PostgreSQL store is opened: for a process that serves, although the server may be away, and for a
//! command that only looks.

use std::path::Path;

use super::driver::Driver;
use super::link::Link;
use super::process::Process;
use super::refusals::Refusal;
use super::settings::Settings;
use super::upkeep::{Tenancy, Upkeep};
use super::view::View;
use super::{Parts, Postgres, outbox, schema, server_checks};
use crate::clock::Clock;
use crate::store::Pseudonyms;

/// Opens the store for one process; with `create` makes its tables if there are none. A server that is
/// away is no error: the store is used once it is back.
pub(in crate::store) async fn open(
    settings: Settings,
    create: bool,
    pseudonyms: Pseudonyms,
    process: Process,
    clock: Clock,
) -> Result<Postgres, Refusal> {
    let driver = Driver::start()?;
    let parts = driver.run(async move {
        let tenancy = Tenancy {
            address: settings.address.clone(),
            run: process.run,
            create,
        };
        let link = Link::new(settings, clock)?;
        let upkeep = Upkeep::start(&link, tenancy).await?;
        Ok::<_, Refusal>(Parts::start(link, upkeep, pseudonyms, process))
    });
    Ok(Postgres::new(parts.await?, driver))
}

/// Opens the store for reading. Returns `None` if there are no tables yet and `create` says that
/// [`open`] would make them. The outbox of this machine is in the folder `path`.
pub(in crate::store) async fn view(
    path: &Path,
    settings: Settings,
    create: bool,
    pseudonyms: Pseudonyms,
    clock: Clock,
) -> Result<Option<View>, Refusal> {
    let driver = Driver::start()?;
    let seen = driver.run(async move {
        let address = settings.address.clone();
        let link = Link::new(settings, clock)?;
        let fit = server_checks::check(&link).await?;
        let standby = fit.map_err(|why| Refusal::Unfit {
            address: address.clone(),
            why,
        })?;
        let mut session = link.session().await?;
        if !schema::is_there(&mut session).await? {
            return match create {
                true => Ok(None),
                false => Err(Refusal::Absent(address)),
            };
        }
        schema::check(&mut session)
            .await
            .map_err(|why| Refusal::of_tables(address, why))?;
        drop(session);
        link.greet().await?;
        Ok(Some((link, standby)))
    });
    let Some((link, standby)) = seen.await? else {
        return Ok(None);
    };
    let outbox = outbox::waiting_in(path)
        .map_err(|error| outbox::Refusal::Unopened(path.to_owned(), error))?;
    Ok(Some(View::new(driver, link, pseudonyms, standby, outbox)))
}

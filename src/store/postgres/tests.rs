//! The contract on real servers.

use std::thread;

use servers::Database;
use tokio::runtime;

use super::*;
use crate::clock::Clock;
use crate::store::contract::{Medium, contract};

/// A database of its own on a server, reached straight.
pub(super) struct Direct {
    database: Database,
    clock: Clock,
}

impl Default for Direct {
    fn default() -> Direct {
        Direct {
            database: Database::new(),
            clock: Clock::real(),
        }
    }
}

impl Medium for Direct {
    type Store = Postgres;

    fn open(&self, run: RunId) -> Postgres {
        open(&self.database.url(), run, self.clock)
    }

    fn clock(&self) -> Clock {
        self.clock
    }
}

/// A handle on the database at `url`, whose tables are made if there are none.
pub(super) fn open(url: &str, run: RunId, clock: Clock) -> Postgres {
    let url = Url::parse(url).unwrap();
    let settings = Settings {
        address: url.address,
        password: url.password.map_or(Password::Absent, Password::Given),
        ca_file: None,
        connections: 4,
    };
    let opening = move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let opened = runtime.block_on(super::open(settings, true, run, clock));
        opened.unwrap_or_else(|refusal| panic!("{refusal}"))
    };
    // Within a test's runtime nothing may block.
    thread::spawn(opening).join().unwrap()
}

mod direct {
    use super::*;

    contract! { Direct:
        nothing_is_known_of_a_new_principal
        a_commit_is_there_for_every_process
        a_commit_on_an_old_generation_is_superseded_and_writes_nothing
        of_commits_at_once_exactly_one_wins
        every_note_is_remembered_and_a_commit_clears_those_about_the_old_pair
        a_rejected_login_ends_being_known
        where_a_user_was_registered_is_known_until_a_login_says_more
        a_forgotten_principal_keeps_its_generation_and_stays_forgotten
        only_one_process_holds_a_lease_and_a_release_frees_it
        a_lease_comes_with_the_entry_that_stands_once_it_is_taken
        nobody_releases_the_lease_of_another
        a_lease_that_ran_out_is_granted_as_orphaned
        the_leases_of_a_closed_process_are_orphaned_at_once
        groups_do_not_share_slots
        due_are_living_pairs_oldest_first_and_claimed_once
        a_listing_pages_through_pairs_and_notes_in_order
        the_first_canary_stands_until_it_is_replaced
        a_record_is_resealed_only_while_it_is_the_one_that_was_read
        a_store_is_writable
        a_guard_is_written_by_who_knows_what_stands_there
        of_writes_of_a_guard_at_once_exactly_one_wins
    }
}

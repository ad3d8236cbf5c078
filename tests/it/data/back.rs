//! What is refused, what goes back, what is told, and backups.

use super::Ground;
use super::sqlite::Sqlite;

#[test]
fn the_live_database_is_refused() {
    let ground = Ground::new(Sqlite::new);
    ground.releasefile("{host.root}/live/copies", "");
    let _ = ground.add_script(1, false);
    let refused = ground.evolve().fails(1);
    let words = "hosts/db/first/: it evolves only as a copy";
    assert!(refused.stderr.contains(words), "{refused}");
}

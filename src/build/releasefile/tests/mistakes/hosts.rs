//! Mistakes in hosts, groups and the uses on them.

use super::super::{Space, report};

#[test]
fn bad_ranges() {
    insta::assert_snapshot!(report(r#"
host "px[5678]" local=#true
host "py[8-1]" local=#true
host "pz[1-8" local=#true
group "g" "px[1,,2]"
"#), @r##"
    rel::build::releasefile::bad_range

      × `[5678]` is neither a range nor a list
       ╭─[Releasefile.kdl:2:6]
     2 │ host "px[5678]" local=#true
       ·      ─────┬────
       ·           ╰── not a range
       ╰────
      help: did you mean `[5,6,7,8]`?

    rel::build::releasefile::bad_range

      × `[8-1]` is in descending order
       ╭─[Releasefile.kdl:3:6]
     3 │ host "py[8-1]" local=#true
       ·      ────┬────
       ·          ╰── not a range
       ╰────
      help: did you mean `[1-8]`?

    rel::build::releasefile::bad_range

      × `pz[1-8` has a `[` without its `]`
       ╭─[Releasefile.kdl:4:6]
     4 │ host "pz[1-8" local=#true
       ·      ────┬───
       ·          ╰── not a range
       ╰────
      help: write `[1-8]` for a range, `[a,b]` for a list

    rel::build::releasefile::bad_range

      × `[1,,2]` has an empty item
       ╭─[Releasefile.kdl:5:11]
     5 │ group "g" "px[1,,2]"
       ·           ─────┬────
       ·                ╰── not a range
       ╰────
      help: write `[1-8]` for a range, `[a,b]` for a list
    "##);
}

#[test]
fn unknown_hosts_pools_and_uses() {
    insta::assert_snapshot!(report(r#"
pool "connections" depth=2
target "a" { pool "conections"; run "x" }
target "b" { pool "connections" weight=3; run "x" }
host "karl[01-04]" ssh="karl@{name}.example.org"
host "broken"
host "both" local=#true ssh="x" port=70000
group "ops" "karl[01-05]" "obs"
group "p" "q"
group "q" "p"
environment "e" {
    param "n" one-of="01 02 09"
    use "evolve" on="karl04 krl04"
    use "evolve" as="second" on="karl{n}" after="evolv"
    use "db-copy" on="karl[01-02]" from="ops"
    use "x" { on "karl01" }
}
"#), @r##"
    rel::build::releasefile::unknown_pool

      × there is no pool `conections`
       ╭─[Releasefile.kdl:3:19]
     3 │ target "a" { pool "conections"; run "x" }
       ·                   ──────┬─────
       ·                         ╰── not a pool
       ╰────
      help: did you mean `connections`?

    rel::build::releasefile::bad_number

      × the weight 3 never fits into a pool of depth 2
       ╭─[Releasefile.kdl:4:40]
     4 │ target "b" { pool "connections" weight=3; run "x" }
       ·                                        ┬
       ·                                        ╰── too heavy
       ╰────

    rel::build::releasefile::bad_host

      × the host does not say how it is reached
       ╭─[Releasefile.kdl:6:1]
     6 │ host "broken"
       · ──┬─
       ·   ╰── this host
       ╰────
      help: write `ssh="user@name"`, or `local=#true` for this machine

    rel::build::releasefile::bad_host

      × a host is either `local` or reached by `ssh`, not both
       ╭─[Releasefile.kdl:7:1]
     7 │ host "both" local=#true ssh="x" port=70000
       · ──┬─
       ·   ╰── this host
       ╰────
      help: write `ssh="user@name"`, or `local=#true` for this machine

    rel::build::releasefile::unknown_property

      × a local host has no `port`
       ╭─[Releasefile.kdl:7:38]
     7 │ host "both" local=#true ssh="x" port=70000
       ·                                      ──┬──
       ·                                        ╰── not needed
       ╰────

    rel::build::releasefile::unknown_host

      × there is no host or group `karl05`
       ╭─[Releasefile.kdl:8:13]
     8 │ group "ops" "karl[01-05]" "obs"
       ·             ──────┬──────
       ·                   ╰── not a host
       ╰────
      help: did you mean `karl01`?

    rel::build::releasefile::unknown_host

      × there is no host or group `obs`
       ╭─[Releasefile.kdl:8:27]
     8 │ group "ops" "karl[01-05]" "obs"
       ·                           ──┬──
       ·                             ╰── not a host
       ╰────
      help: did you mean `ops`?

    rel::build::releasefile::cycle

      × groups form a cycle: p -> q -> p
        ╭─[Releasefile.kdl:10:11]
     10 │ group "q" "p"
        ·           ─┬─
        ·            ╰── closes the cycle here
        ╰────

    rel::build::releasefile::unknown_host

      × there is no host or group `krl04`
        ╭─[Releasefile.kdl:13:21]
     13 │     use "evolve" on="karl04 krl04"
        ·                     ───────┬──────
        ·                            ╰── not a host
        ╰────
      help: did you mean `karl04`?

    rel::build::releasefile::unknown_host

      × there is no host or group `karl09`
        ╭─[Releasefile.kdl:14:33]
     14 │     use "evolve" as="second" on="karl{n}" after="evolv"
        ·                                 ────┬────
        ·                                     ╰── not a host
        ╰────
      help: did you mean `karl01`?

    rel::build::releasefile::unknown_use

      × no use above this one is called `evolv`
        ╭─[Releasefile.kdl:14:49]
     14 │     use "evolve" as="second" on="karl{n}" after="evolv"
        ·                                                 ───┬───
        ·                                                    ╰── not a use
        ╰────
      help: did you mean `evolve`?

    rel::build::releasefile::too_many

      × `from` takes one host, and `ops` is 4
        ╭─[Releasefile.kdl:15:41]
     15 │     use "db-copy" on="karl[01-02]" from="ops"
        ·                                         ──┬──
        ·                                           ╰── more than one
        ╰────

    rel::build::releasefile::unknown_node

      × `on` is a property of `use`
        ╭─[Releasefile.kdl:16:15]
     16 │     use "x" { on "karl01" }
        ·               ─┬
        ·                ╰── not a node
        ╰────
      help: write `on="…"` on the line of the use
    "##);
}

#[test]
fn a_file_of_hosts_has_only_hosts() {
    let space = Space::new("host \"a\" local=#true\n")
        .hosts("target \"x\" { run \"x\" }\nhost \"a\" lcal=#true\n");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::unknown_node

      × a file of hosts has no node `target`
       ╭─[hosts.kdl:1:1]
     1 │ target "x" { run "x" }
       · ───┬──
       ·    ╰── not known here
       ╰────
      help: it takes `host`, `group`, `include`

    rel::build::releasefile::bad_host

      × the host does not say how it is reached
       ╭─[hosts.kdl:2:1]
     2 │ host "a" lcal=#true
       · ──┬─
       ·   ╰── this host
       ╰────
      help: write `ssh="user@name"`, or `local=#true` for this machine

    rel::build::releasefile::unknown_property

      × `host` has no property `lcal`
       ╭─[hosts.kdl:2:10]
     2 │ host "a" lcal=#true
       ·          ──┬─
       ·            ╰── not a property of it
       ╰────
      help: did you mean `local`?
    "##);
}

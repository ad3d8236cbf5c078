//! Mode and owner of the files that steps write: compared, told before they change, brought back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::space::Space;

/// An environment that writes one file on one host.
fn space(write: &str) -> Space {
    Space::with_steps(&format!("step \"file\" {{ {write}; }}"))
}

fn mode(space: &Space) -> u32 {
    let meta = fs::metadata(space.path("hosts/h/file")).expect("a file");
    meta.permissions().mode() & 0o7777
}

fn set_mode(space: &Space, mode: u32) {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(space.path("hosts/h/file"), mode).expect("sets");
}

#[test]
fn a_mode_that_drifted_is_set_again() {
    let space = space(r#"write "{host.root}/file" "{v}\n" mode="0600""#);
    let _ = space.run(["e"]).ok();
    assert_eq!(mode(&space), 0o600);
    for drift in [0o644, 0o400, 0o2600] {
        set_mode(&space, drift);
        let status = space.run(["status", "e"]).ok();
        assert!(status.stdout.contains(", not 0600"), "{status}");
        let ran = space.run(["e"]).ok();
        assert!(ran.stderr.contains("1 step ran"), "{ran}");
        assert_eq!(mode(&space), 0o600);
        let none = space.run(["e"]).ok();
        assert!(none.stderr.contains("nothing to do"), "{none}");
    }
}

#[test]
fn a_secret_that_others_can_read_by_now_is_written_again() {
    let space = Space::new(
        r#"
host "h" local=#true root="hosts/h"
secret "s" file="s"
environment "e" { use "r" on="h" s="s"; }
"#,
    );
    space.write("s", "hunter2hunter2\n");
    space.write(
        "recipes/r.kdl",
        "recipe \"r\" {\n param \"s\" type=\"secret\"\n \
         step \"s\" { write \"{host.root}/file\" \"{s}\\n\"; }\n}\n",
    );
    let _ = space.run(["e"]).ok();
    assert_eq!(mode(&space), 0o600);
    set_mode(&space, 0o644);
    let ran = space.run(["e"]).ok();
    assert!(ran.stderr.contains("1 step ran"), "{ran}");
    assert_eq!(mode(&space), 0o600);
}

#[test]
fn a_file_of_another_mode_is_told_before_it_is_replaced_and_comes_back() {
    let space = space(r#"write "{host.root}/file" "{v}\n" mode="0644""#);
    // The very content: only who may read it differs.
    space.write("hosts/h/file", "1\n");
    set_mode(&space, 0o640);
    let plan = space.run(["e", "--plan"]).ok();
    assert_snapshot!(plan, @"
    note: `[work]/hosts/h/file`: mode 0640 -> 0644
    h  r (r)
          run  file        write [work]/hosts/h/file  never done here
               content unchanged
    r  rollback: file
    e: 1 step would run, 0 up to date, on 1 host
    ");
    let ran = space.run(["e"]).ok();
    assert!(ran.stderr.contains("mode 0640 -> 0644"), "{ran}");
    assert_eq!(mode(&space), 0o644);
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(mode(&space), 0o640);
    // One that is so already is taken as it stands.
    set_mode(&space, 0o644);
    let none = space.run(["e"]).ok();
    assert!(none.stderr.contains("nothing to do"), "{none}");
}

#[test]
fn a_file_of_another_owner_is_told_and_comes_back() {
    let space = space(r#"write "{host.root}/file" "{v}\n""#);
    space.write("hosts/h/file", "0\n");
    let script = r#"
file=hosts/h/file
chown 1:1 $file
"$REL" e --plan >plan
grep -qF -- '-> the login user' plan
"$REL" e 2>ran
grep -qF -- '-> the login user' ran
test "$(stat -c %u:%g $file)" = 0:0
# Whose it is counts only where the step says so.
chown 1:1 $file
"$REL" e 2>&1 | grep -q 'nothing to do'
chown 0:0 $file
"$REL" e --rollback
test "$(stat -c %u:%g $file)" = 1:1
sed -i 's/\\n"/\\n" owner="root:root"/' recipes/r.kdl
"$REL" e
test "$(stat -c %u:%g $file)" = 0:0
chown 1:1 $file
"$REL" e 2>ran
grep -q 'has the owner' ran
test "$(stat -c %u:%g $file)" = 0:0
"#;
    let script = format!("set -x\n{script}");
    let _ = space.finish(&mut space.by_root(&script)).ok();
}

//! What travels to a host that has the last release: what differs, and nothing else; and what
//! lies there in the end is what lies here, whatever was done to the last one meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::hosts::{Host, Hosts};
use crate::space::Space;

fn site(hosts: &Hosts) -> Space {
    let space = Space::new(&format!(
        r#"
project "site"
target "site" {{ inputs "in/**"; outputs "built/"; run "rm -rf built; cp -Rp in built"; }}
{}
environment "production" {{
    needs "site"
    use "versioned-release" as="site" on="h1" artifact="{{site}}" root="{{host.root}}/site"
    use "copied" on="h1" artifact="{{site}}"
}}
"#,
        hosts.kdl()
    ));
    // Into a directory that is there already nothing is moved or linked.
    space.write(
        "recipes/copied.kdl",
        "recipe \"copied\" {\n param \"artifact\" type=\"artifact\"\n \
         step \"put\" { put \"{artifact}\" to=\"{host.root}/copies/{artifact.id}/\"; }\n \
         step \"link\" { symlink \"{host.root}/latest\" to=\"copies/{artifact.id}\"; }\n}\n",
    );
    for number in 0..30 {
        space.write(
            format!("in/dir{}/file {number}", number % 3),
            format!("{number}\n"),
        );
    }
    space
}

/// Kind, mode and content of all below a directory.
fn tree(top: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let entries = walkdir::WalkDir::new(top.join("."))
        .min_depth(1)
        .into_iter();
    entries
        .map(|entry| {
            let entry = entry.expect("lists");
            let name = entry
                .path()
                .strip_prefix(top.join("."))
                .expect("lies below");
            let meta = entry.metadata().expect("is there");
            let content = match meta.file_type() {
                t if t.is_file() => fs::read(entry.path()).expect("reads"),
                t if t.is_symlink() => fs::read_link(entry.path())
                    .expect("reads")
                    .into_os_string()
                    .into_encoded_bytes(),
                _ => Vec::new(),
            };
            (name.display().to_string(), (meta.mode(), content))
        })
        .collect()
}

/// Deploys, and compares what lies on the host with what lies here.
fn deploy(space: &Space, host: &Host) {
    let output = space.run(["production"]).ok();
    let here = tree(&space.path("built"));
    assert_eq!(tree(&host.srv("site/current/artifact")), here, "{output}");
    assert_eq!(tree(&host.srv("latest")), here, "{output}");
    let again = space.run(["production"]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

fn inode(host: &Host, release: &Path, name: &str) -> u64 {
    let path = host.srv("site").join(release).join("artifact").join(name);
    fs::metadata(path).expect("is there").ino()
}

#[test]
fn a_host_that_has_the_last_release_gets_what_differs() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = site(&hosts);
    let current = || fs::read_link(host.srv("site/current")).expect("is a link");
    deploy(&space, host);
    let first = current();

    // Another content, another mode, a file that is gone, one that is new, a file where a
    // directory was, a link, an empty directory.
    space.write("in/dir0/file 3", "another\n");
    fs::set_permissions(
        space.path("in/dir0/file 6"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("sets");
    fs::remove_file(space.path("in/dir0/file 9")).expect("removes");
    space.write("in/new\nline", "new\n");
    fs::remove_dir_all(space.path("in/dir2")).expect("removes");
    space.write("in/dir2", "was a directory\n");
    std::os::unix::fs::symlink("dir0/file 3", space.path("in/link")).expect("links");
    deploy(&space, host);
    let second = current();
    assert_ne!(first, second);
    let shared = |name: &str| inode(host, &first, name) == inode(host, &second, name);
    assert!(shared("dir1/file 1") && shared("dir0/file 0"));
    assert!(!shared("dir0/file 3") && !shared("dir0/file 6"));

    // A name that lines cannot hold: everything travels. Without it less does again.
    fs::remove_file(space.path("in/new\nline")).expect("removes");
    deploy(&space, host);
    let third = current();
    space.write("in/dir0/file 3", "a third\n");
    deploy(&space, host);
    let fourth = current();
    assert_eq!(
        inode(host, &third, "dir1/file 1"),
        inode(host, &fourth, "dir1/file 1")
    );
}

#[test]
fn what_was_done_to_the_last_release_is_not_carried_on() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = site(&hosts);
    deploy(&space, host);
    let artifact = host.srv("site/current/artifact");
    // Same size, same times: nobody who looks at those would see it.
    let edited = artifact.join("dir0/file 0");
    let times = fs::metadata(&edited)
        .expect("is there")
        .modified()
        .expect("has one");
    fs::write(&edited, "X\n").expect("writes");
    let file = fs::File::options()
        .write(true)
        .open(&edited)
        .expect("opens");
    file.set_modified(times).expect("sets");
    fs::write(artifact.join("left behind"), "").expect("writes");
    fs::create_dir(artifact.join("empty")).expect("makes");
    fs::remove_file(artifact.join("dir1/file 1")).expect("removes");
    fs::set_permissions(
        artifact.join("dir1/file 4"),
        fs::Permissions::from_mode(0o600),
    )
    .expect("sets");
    space.write("in/dir2/file 2", "two\n");
    deploy(&space, host);
    // Nothing of it there at all, and the record of it points nowhere.
    fs::remove_dir_all(host.srv("site")).expect("removes");
    fs::remove_dir_all(host.srv("copies")).expect("removes");
    fs::remove_file(host.srv("latest")).expect("removes");
    space.write("in/dir2/file 2", "three\n");
    deploy(&space, host);
}

/// The name that something gets on a host is the digest of what was built for this run.
#[test]
fn what_is_built_anew_meanwhile_is_not_sent_under_the_name_of_the_former() {
    let space = Space::new(
        r#"
host "a" local=#true root="srv/a"
target "page" { inputs "page.txt"; outputs "build/page"; run "cp page.txt {out}"; }
target "tree" { inputs "page.txt"; outputs "build/tree/"; run "mkdir -p {out}/sub; cp page.txt {out}/sub/page"; }
environment "one" { needs "page"; use "slow" on="a"; use "put" on="a" artifact="{page}" after="slow"; }
environment "all" { needs "tree"; use "slow" on="a"; use "put" on="a" artifact="{tree}" after="slow"; }
"#,
    );
    space.write(
        "recipes/slow.kdl",
        r#"recipe "slow" { step "wait" { run "echo >at-work; until [ -e go ]; do sleep 0.05; done"; }; }"#,
    );
    space.write(
        "recipes/put.kdl",
        r#"recipe "put" { param "artifact" type="artifact"; step "put" { put "{artifact}" to="{host.root}/put/"; }; }"#,
    );
    fs::create_dir_all(space.path("srv/a")).expect("creates");
    for (name, file) in [("one", "srv/a/put/page"), ("all", "srv/a/put/sub/page")] {
        space.write("page.txt", "former\n");
        let run = space.begin([name]);
        let _ = space.wait_for("srv/a/at-work");
        space.write("page.txt", "latter\n");
        let _ = space.run(["build"]).ok();
        space.write("srv/a/go", "");
        let told = run.finish().fails(1);
        assert!(
            told.stderr.contains("was changed after it was built"),
            "{told}"
        );
        assert!(!space.has(file), "{told}");
        let _ = space.run([name]).ok();
        assert_eq!(space.read(file), "latter\n");
        for left in ["go", "at-work", "put"] {
            space.remove(format!("srv/a/{left}"));
        }
    }
}

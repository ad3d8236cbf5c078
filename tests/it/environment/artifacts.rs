//! What is released: directories, many files, and names that nobody would choose.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::told;
use crate::space::Space;

const NAMES: [&[u8]; 9] = [
    b"plain",
    b"with space",
    b"quote'd",
    b"double\"d",
    b"new\nline",
    b"latin-\xe9\xff",
    b"-rf",
    b"$(touch pwned) `x` \\",
    b"{braces} *",
];

#[test]
fn any_file_name_arrives() {
    let space = Space::new(
        r#"
target "tree" { inputs "tree/"; outputs "build/tree/"; run "mkdir -p {out} && cp -R tree/. {out}"; }
host "a" local=#true root="hosts/a dir's"
environment "staging" {
    needs "tree"
    use "versioned-release" as="site" on="a" artifact="{tree}" root="{host.root}/the site" keep="2"
}
"#,
    );
    let mut expected = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        let dir = OsStr::from_bytes(name);
        let path = std::path::Path::new("tree").join(dir).join(dir);
        space.write(&path, format!("content {i}\n"));
        expected.push((path.strip_prefix("tree").expect("below").to_owned(), i));
    }
    space.write("tree/run", "#!/bin/sh\n");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(space.path("tree/run"), mode).expect("sets");
    std::os::unix::fs::symlink("plain/plain", space.path("tree/link")).expect("links");

    let check = |space: &Space| {
        let live = space.path("hosts/a dir's/the site/current/artifact");
        for (path, i) in &expected {
            let text = fs::read_to_string(live.join(path)).expect("arrived");
            assert_eq!(text, format!("content {i}\n"));
        }
        let run = fs::metadata(live.join("run")).expect("arrived");
        assert_eq!(run.permissions().mode() & 0o111, 0o111);
        let link = fs::read_link(live.join("link")).expect("a link");
        assert_eq!(link, std::path::Path::new("plain/plain"));
    };
    let _ = space.run(["staging"]).ok();
    check(&space);
    assert_eq!(told(&space, &[])["ran"], 0);

    // A name less, a name more: another release.
    space.remove("tree/plain");
    space.write("tree/added", "");
    std::os::unix::fs::symlink("x", space.path("tree/dangling")).expect("links");
    let changed = space.run(["staging"]);
    assert!(changed.code == 0 || changed.code == 1, "{changed}");
    assert!(!space.has("pwned"));
}

#[test]
fn several_files_and_one_file_are_laid_down_by_their_names() {
    let space = Space::new(
        r#"
target "many" { outputs "build/*.txt"; run "mkdir -p build; echo 1 > build/one.txt; echo 2 > 'build/t w o.txt'"; }
target "one" { outputs "build/one.bin"; run "echo one > {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "many" "one"
    use "lay" on="a" many="{many}" one="{one}"
}
"#,
    );
    let body = r#"
    param "many" type="artifact"
    param "one" type="artifact"
    step "into" { put "{many}" to="{host.root}/many/" }
    step "beside" { put "{one}" to="{host.root}/one/" }
    step "as" { put "{one}" to="{host.root}/renamed" }
    step "said" { run "echo {many.name} {one.name} {one.id} > said" }"#;
    super::recipe(&space, "lay", body);
    let _ = space.run(["staging"]).ok();
    assert_eq!(space.read("hosts/a/many/t w o.txt"), "2\n");
    assert_eq!(space.read("hosts/a/one/one.bin"), "one\n");
    assert_eq!(space.read("hosts/a/renamed"), "one\n");
    let sha256 = space.shell("sha256sum build/one.bin");
    let said = space.read("hosts/a/said");
    assert!(
        said.contains("one.bin") && said.contains(&sha256[..12]),
        "{said}"
    );

    // What somebody took away is put there again.
    space.remove("hosts/a/many");
    assert_eq!(told(&space, &[])["ran"], 1);
    assert!(space.has("hosts/a/many/one.txt"));
}

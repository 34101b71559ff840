# A package for an image. In your repository it would come from nixpkgs, pinned by its hash:
#
#   { system }:
#   let
#     nixpkgs = fetchTarball { url = "…/nixpkgs/archive/<commit>.tar.gz"; sha256 = "…"; };
#   in (import nixpkgs { inherit system; }).curl
#
# This one needs no network. Its tools are a file of the repository, for Nix.
{ system, greeting }:
let
  tools = ./tools;
in {
  inherit tools;

  greeter = derivation {
    name = "greeter-1.0";
    inherit system greeting;
    builder = "${tools}/sh";
    args = [ "-euc" ''
      ${tools}/mkdir -p $out/bin
      echo "#!${tools}/sh" > $out/bin/greet
      echo "echo \"$greeting from Nix, with \$(${tools}/cat /message.txt).\"" >> $out/bin/greet
      ${tools}/chmod 755 $out/bin/greet
    '' ];
  };

  # What `/bin` of the image has.
  shell = derivation {
    name = "shell";
    inherit system;
    builder = "${tools}/sh";
    args = [ "-euc" ''
      ${tools}/mkdir -p $out/bin
      ${tools}/ln -s ${tools}/busybox $out/bin/ls
      ${tools}/ln -s ${tools}/busybox $out/bin/sh
    '' ];
  };
}

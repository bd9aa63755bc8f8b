# What the files of a machine share: the clan as the service sees it, the machine's networks and its open ports.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  context = {
    inherit (common) cd machine;
    inherit
      common
      config
      lib
      options
      pkgs
      ;
    seen = view.of common options config;
    networks = import ./networks.nix context;
    firewall = import ./firewall.nix context;
  };
in
context

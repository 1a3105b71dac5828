package build

// Sets are groups of modules by purpose. Members that the kernel does not have are skipped, since architectures and
// configurations differ.
var Sets = map[string][]string{
	"virtio": {"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_rng"},
	"storage": {
		"nvme", "ahci", "ahci_platform", "ata_piix", "sd_mod", "sr_mod", "mmc_block", "sdhci_pci", "sdhci_acpi", "sdhci_iproc",
		"sdhci_esdhc_imx", "sdhci_of_arasan", "sdhci_am654", "sdhci_msm", "sdhci_tegra", "bcm2835", "meson_gx_mmc", "sunxi_mmc",
		"dw_mmc_rockchip", "rtsx_pci_sdmmc", "ufshcd_pci",
	},
	"usb-storage": {
		"xhci_pci", "xhci_plat_hcd", "ehci_pci", "ehci_platform", "ohci_pci", "ohci_platform", "uhci_hcd", "dwc2", "dwc3",
		"dwc3_pci", "ci_hdrc_imx", "usb_storage", "uas", "sd_mod", "sr_mod",
	},
	"net": {
		"virtio_net", "e1000", "e1000e", "igb", "igc", "r8169", "realtek", "tg3", "atlantic", "genet", "bcmgenet", "fec", "macb",
		"mvneta", "mvpp2", "dwmac_rk", "dwmac_sun8i", "dwmac_generic", "stmmac_pci", "ti_am65_cpsw_nuss", "asix", "ax88179_178a", "r8152",
		"cdc_ether", "cdc_ncm", "smsc95xx", "lan78xx", "8021q",
	},
	"fs": {"ext4", "vfat", "exfat", "isofs", "nls_cp437", "nls_iso8859-1", "nls_ascii", "nls_utf8", "efivarfs"},
	"input": {
		"usbhid", "hid_generic", "i8042", "atkbd", "gpio_keys", "virtio_input", "evdev",
	},
	"watchdog": {
		"iTCO_wdt", "lpc_ich", "i2c_i801", "i6300esb", "sp5100_tco", "wdat_wdt", "sbsa_gwdt", "bcm2835_wdt", "imx2_wdt", "dw_wdt",
		"sunxi_wdt", "meson_gxbb_wdt", "omap_wdt",
	},
}
